"""float16 on a Tesla T4: a gradient that overflows costs a step, and nothing else."""

from collections.abc import Container
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from tests.rehearsal.stage import Stage

SETTINGS = (
    "rollout.engine=lowmem",  # auto times both, and times mean nothing here
    "grpo.prompts_per_step=2",
    "memory.micro_batch=8",
    "grpo.max_completion_tokens=16",
    "eval.examples=4",
    "eval.quick_examples=4",
    "eval.every=0",
    "optimizer.schedule=linear",
    "optimizer.warmup_steps=0",
    "optimizer.learning_rate=1e-3",
)


def scales_from_far_above() -> None:
    """The first gradients overflow: float16 ends at 65,504."""
    begins_with(2.0**36)


def scales_from_the_floor() -> None:
    """Every gradient is infinite, at any scale."""
    begins_with(2.0)
    spoils_gradients()


def begins_with(scale: float) -> None:
    import torch

    plain = torch.amp.GradScaler.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **{**kwargs, "init_scale": scale})

    torch.amp.GradScaler.__init__ = init


def spoils_gradients(steps: Container[int] = range(100)) -> None:
    import torch

    plain, calls = torch.amp.GradScaler.unscale_, count(1)

    def unscale(self: Any, optimizer: Any) -> None:
        if next(calls) in steps:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    weight.grad.fill_(float("inf"))
        plain(self, optimizer)

    torch.amp.GradScaler.unscale_ = unscale


def spoils_two_steps() -> None:
    """The third and the fourth gradient are infinite, at scales of 2 and 1."""
    begins_with(2.0)
    spoils_gradients({3, 4})


def train(stage: Stage, out: Path, steps: int, optimizer: str, before: Any, *settings: str) -> Any:
    words = [f"--set={setting}" for setting in (*SETTINGS, f"optimizer.name={optimizer}", *settings)]
    return stage.lowmem(
        "train", "--preset=tiny-cpu", f"--steps={steps}", "--reward=random=1", *words, "--out", str(out), before=before
    )


@pytest.mark.parametrize("optimizer", ["adamw_8bit", pytest.param("adamw_torch_fused", marks=pytest.mark.long)])
def test_a_skipped_step_is_counted_and_shown_and_no_finding(t4: Stage, optimizer: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    ended = train(t4, run.path, 3, optimizer, scales_from_far_above)
    assert ended.code == 0, ended.output
    rows = list(read_rows(run.metrics))
    assert [row["optimizer_skipped"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["loss_scale"] for row in rows] == [2.0**35, 2.0**34, 2.0**33]
    assert [row["grad_norm"] for row in rows] == [None, None, None]
    assert "skipped overflow, loss scale now 3.43597e+10" in ended.output
    assert read_json(run.health)["findings"] == []
    # The schedule counts the steps that were made, as accelerate's does.
    assert len({row["learning_rate"] for row in rows}) == 1


@pytest.mark.long
def test_an_overflow_at_the_floor_of_the_scale_ends_the_run_with_its_cause(t4: Stage, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    ended = train(t4, run.path, 4, "adamw_8bit", scales_from_the_floor)
    assert ended.code == 5, ended.output
    rows = list(read_rows(run.metrics))
    assert [row["loss_scale"] for row in rows] == [1.0, 0.5]
    (finding,) = read_json(run.health)["findings"]
    assert (finding["name"], finding["severity"], finding["steps"]) == ("not_a_number", "critical", [2, 2])
    assert "model.dtype" in finding["cure"]
    assert "Traceback" not in ended.output


@pytest.mark.long
def test_a_rollback_restores_the_scale_of_the_checkpoint(t4: Stage, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    settings = ("health.action=roll_back", "logging.checkpoint_every=1")
    ended = train(t4, run.path, 5, "adamw_8bit", spoils_two_steps, *settings)
    assert ended.code == 0, ended.output
    (undone,) = read_rows(run.rollbacks)
    assert (undone["step"], undone["to"], undone["finding"]) == (4, 3, "not_a_number")
    assert [row["loss_scale"] for row in read_rows(run.metrics)] == [2.0, 2.0, 1.0, 0.5, 1.0]
