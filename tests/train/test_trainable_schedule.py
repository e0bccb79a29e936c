"""Real runs in which the layers that learn change: in each step only the scheduled ones move."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.train import run
from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl.trainable.schedule import LayerSchedule

STEPS, DEPTH = 4, 3
SMALL = (
    *("eval.examples=16", "eval.every=0", "grpo.prompts_per_step=2", f"grpo.steps={STEPS}", "memory.micro_batch=16"),
    *("grpo.beta=0.04", "logging.checkpoint_every=1", "logging.keep_checkpoints=9", "trainable.every=1"),
)


def trained(out: Path, *settings: str) -> tuple[RunDir, RunConfig]:
    composed = resolve(preset="tiny-cpu", settings=[*SMALL, *settings])
    run(composed, out)
    return RunDir(out), composed.config


def saved_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "adapter_model.safetensors")
    return found


def layers_moved(before: Path, after: Path) -> tuple[int, ...]:
    import torch

    old, new = saved_weights(before), saved_weights(after)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    return tuple(sorted({int(name.split(".layers.")[1].split(".")[0]) for name in moved}))


@pytest.mark.parametrize(
    "settings",
    [
        ("trainable.schedule=gradual_unfreezing",),
        ("trainable.schedule=lisa", "memory.checkpointing=plain", "optimizer.name=adamw_8bit"),
        ("trainable.schedule=badam", "trainable.method=full", "model.bits=16", "trainable.state=keep"),
    ],
    ids=lambda settings: settings[0],
)
def test_only_the_scheduled_layers_move(tmp_path: Path, settings: tuple[str, ...]) -> None:
    run_dir, config = trained(tmp_path / "run", *settings)
    plan = LayerSchedule.of(config, DEPTH)
    expected = [plan.at(step) for step in range(1, STEPS + 1)]
    checkpoints = [run_dir.checkpoint(step) for step in range(1, STEPS + 1)]
    moved = [layers_moved(*pair) for pair in pairwise(checkpoints)]
    assert moved == expected[1:]  # the KL pass, which switches adapters off and on, has freed no layer
    changes = [step for step in range(STEPS) if step == 0 or expected[step] != expected[step - 1]]
    rows = [{"step": step + 1, "layers": list(expected[step])} for step in changes]
    assert list(read_rows(run_dir.trainable)) == rows
    assert all(row["grad_norm"] > 0 for row in read_rows(run_dir.metrics))


def test_a_checkpoint_holds_no_state_of_a_layer_that_has_stopped_learning(tmp_path: Path) -> None:
    import torch

    run_dir, config = trained(tmp_path / "run", "trainable.schedule=gradual_freezing")
    plan = LayerSchedule.of(config, DEPTH)
    counts = []
    for step in range(1, STEPS + 1):
        found = torch.load(run_dir.checkpoint(step) / "optimizer.pt", weights_only=True)
        assert len(found["param_groups"][0]["params"]) + len(found["param_groups"][1]["params"]) == DEPTH * 14
        counts.append(len(found["state"]))
    assert counts == [14 * len(plan.at(step + 1)) for step in range(1, STEPS + 1)]
