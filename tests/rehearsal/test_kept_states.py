"""Updates on the card that begin with states kept while sampling: in 16 bits, through kills, shortages and drifts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.engine.kept_states import max_error
from lowmem_rl.storage.run_dir import Row, RunDir, read_rows
from tests.rehearsal.killed import adapter_of, killed_and_resumed, rows_of
from tests.rehearsal.learning_layers import words
from tests.rehearsal.stage import Stage

pytestmark = pytest.mark.long
OWN = ("kept_states", "kept_states_error", "kept_states_found")
LAST, HIDDEN = 2, 128
HOST, CARD, OFF = (f"memory.kept_states={place}" for place in ("host", "card", "off"))
SAMPLED = ("trainable.layers=last:1", "rollout.engine=lowmem")


def trained(stage: Stage, out: Path, *settings: str, before: Any = None) -> RunDir:
    more = {"before": before} if before else {}
    ended = stage.lowmem("train", *words(*SAMPLED, *settings, steps=2), "--out", str(out), **more)
    assert ended.code == 0, ended.output
    return RunDir(out)


def without_own(rows: list[dict[str, Any]]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in OWN} for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        ("model.bits=4", "rollout.weights=quantized", "memory.checkpointing=unsloth"),
        ("model.bits=4", "rollout.weights=merged", "memory.checkpointing=none"),
        ("model.bits=16", "trainable.method=full", "memory.checkpointing=plain"),
    ],
    ids=["4 bit", "merged", "whole"],
)
def test_the_first_gradient_is_that_of_all_layers_to_rounding(
    a6000: Stage, settings: tuple[str, ...], tmp_path: Path
) -> None:
    host, card, off = (trained(a6000, tmp_path / place[-4:], *settings, place) for place in (HOST, CARD, OFF))
    rows = list(read_rows(host.metrics))
    assert [(row["kept_states"], row["kept_states_found"]) for row in rows] == [(1.0, 1.0)] * 2
    assert all(0 < row["kept_states_error"] < max_error(LAST, HIDDEN, torch.bfloat16) for row in rows)
    assert rows_of(card) == rows_of(host)
    assert adapter_of(card) == adapter_of(host)
    first, whole = rows[0], next(read_rows(off.metrics))
    assert first["grad_norm"] == pytest.approx(whole["grad_norm"], rel=0.02)
    assert first["loss"] == pytest.approx(whole["loss"], abs=1e-3)
    assert first["reward"] == whole["reward"]


@pytest.mark.parametrize("place", [HOST, CARD])
def test_a_run_that_is_killed_within_a_rollout_resumes_bit_for_bit(a6000: Stage, place: str, tmp_path: Path) -> None:
    more = ("grpo.steps_per_rollout=3", "logging.checkpoint_every=1", "logging.samples_every=1")
    command = words(*SAMPLED, *more, place, steps=3)
    ended = a6000.lowmem("train", *command, "--out", str(tmp_path / "whole"))
    assert ended.code == 0, ended.output
    resumed = killed_and_resumed(a6000, command, tmp_path / "killed")
    assert rows_of(resumed) == rows_of(RunDir(tmp_path / "whole"))
    assert adapter_of(resumed) == adapter_of(RunDir(tmp_path / "whole"))


def move_weights() -> None:
    """Changes a frozen weight after the first rollout, by more than rounding explains and less than log-probs show."""
    from lowmem_rl.engine.sampler import Sampler

    plain, rollouts = Sampler.sample, []

    def sample_and_move(sampler: Any, *args: Any, **kwargs: Any) -> Any:
        rollouts.append(plain(sampler, *args, **kwargs))
        if len(rollouts) == 1:
            sampler.policy.model.get_base_model().model.layers[0].post_attention_layernorm.weight.mul_(1.0002)
        return rollouts[-1]

    Sampler.sample = sample_and_move  # type: ignore[method-assign]


def test_states_of_other_weights_are_dropped_and_all_layers_computed(a6000: Stage, tmp_path: Path) -> None:
    ours, whole = (
        trained(a6000, tmp_path / place[-4:], "model.dtype=float32", place, before=move_weights)
        for place in (HOST, OFF)
    )
    first = next(read_rows(ours.metrics))
    assert first["kept_states"] == 0.0
    assert first["kept_states_error"] > max_error(LAST, HIDDEN, torch.float32)
    assert without_own(rows_of(ours))[0] == without_own(rows_of(whole))[0]
