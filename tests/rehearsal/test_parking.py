"""Whole layers that learn in turn on the card: what rests is in host RAM, and a killed run continues to the bit."""

from pathlib import Path

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_rows
from tests.rehearsal.killed import adapter_of, killed_and_resumed, rows_of
from tests.rehearsal.parking import Watched, watch
from tests.rehearsal.stage import Stage

TURNS = (
    *("trainable.method=full", "model.bits=16", "trainable.every=1", "rollout.engine=lowmem"),
    *("logging.checkpoint_every=1", "grpo.prompts_per_step=2", "grpo.max_completion_tokens=16", "memory.micro_batch=8"),
    *("rewards.random=1", "eval.examples=2", "eval.quick_examples=2", "optimizer.warmup_steps=0"),
)
BADAM = ("trainable.schedule=badam", "trainable.order=ascending", "trainable.state=keep")


def words(*settings: str) -> list[str]:
    """Returns what follows `train`, all but --out."""
    return ["--preset=tiny-cpu", "--steps=4", *(f"--set={setting}" for setting in (*TURNS, *settings))]


def watched(stage: Stage, out: Path, *settings: str) -> Watched:
    found: Watched = stage.call(watch, (*words(*settings), "--out", str(out)))
    assert found.code == 0
    return found


@pytest.mark.long
def test_without_a_reference_a_layer_at_rest_takes_two_bytes_a_weight_on_the_card(a6000: Stage, tmp_path: Path) -> None:
    settings = (*BADAM, "grpo.beta=0", "optimizer.name=adamw_torch_fused", "eval.every=2")
    found = watched(a6000, tmp_path / "run", *settings)
    size = found.steps[0][2]["original card"]  # layer 2 has not learned: its original alone, two bytes a weight
    learning = {"original host": size, "copy card": 2 * size}
    resting = {"original host": size, "rounded card": size, "copy host": 2 * size, "state host": 4 * size}
    untouched = {"original card": size}
    assert found.steps[0] == {0: resting, 1: learning, 2: untouched}
    assert found.steps[1] == {0: resting, 1: resting, 2: learning}
    assert found.steps[2] == {0: learning | {"state card": 4 * size}, 1: resting, 2: resting}
    assert found.steps[3] == {0: resting, 1: learning | {"state card": 4 * size}, 2: resting}
    states = 4 * size
    assert found.allocated[2] - found.allocated[1] == pytest.approx(states, rel=0.02)  # nothing else has grown
    # Rollouts of other lengths differ by 15 kB; a weight that stayed would be 2 MB.
    assert found.allocated[3] == pytest.approx(found.allocated[2], abs=0.02 * states)


@pytest.mark.long
def test_a_reference_keeps_the_originals_on_the_card(a6000: Stage, tmp_path: Path) -> None:
    found = watched(a6000, tmp_path / "run", *BADAM, "grpo.beta=0.04", "optimizer.name=adamw_8bit", "eval.every=0")
    size = found.steps[0][2]["original card"]
    resting = {"original card": size, "rounded card": size, "copy host": 2 * size, "state host": size}
    assert found.steps[1] == {0: resting, 1: resting, 2: {"original card": size, "copy card": 2 * size}}
    assert found.steps[2][0] == {"original card": size, "copy card": 2 * size, "state card": size}
    assert all(abs(row["kl"]) < 1 for row in read_rows(RunDir(tmp_path / "run").metrics))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        ("optimizer.name=adamw_8bit", "grpo.beta=0", "eval.every=0", *BADAM),
        ("optimizer.name=adamw_torch_fused", "grpo.beta=0.04", "eval.every=2", "trainable.schedule=lisa"),
    ],
    ids=lambda settings: settings[0],
)
def test_a_killed_run_continues_bit_for_bit(a6000: Stage, settings: tuple[str, ...], tmp_path: Path) -> None:
    command, whole = words(*settings), RunDir(tmp_path / "whole")
    ended = a6000.lowmem("train", *command, "--out", str(whole.path))
    assert ended.code == 0, ended.output
    resumed = killed_and_resumed(a6000, command, tmp_path / "killed")
    assert rows_of(resumed) == rows_of(whole)
    assert adapter_of(resumed) == adapter_of(whole)
    exported = a6000.lowmem("export", str(whole.path), "--to", "merged", "--examples", "8")
    assert exported.code == 0, exported.output
