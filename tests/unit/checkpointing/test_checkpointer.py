"""When a snapshot is captured, and when it may be written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.checkpointing.trainer_state import TrainerSnapshot
from lowmem_rl.config.run_config import LoggingConfig
from lowmem_rl.storage.run_dir import RunDir, write_json


class Counting:
    """A trainer whose state is the number of its step."""

    step = 0

    def take_snapshot(self) -> TrainerSnapshot:
        return TrainerSnapshot(self.step, {}, None, {}, {})

    def save_snapshot(self, snapshot: TrainerSnapshot, folder: Path) -> None:
        write_json(folder / "state.json", snapshot.step)

    def restore_weights(self, folder: Path | None) -> None:
        raise NotImplementedError

    def scale_learning_rate(self, factor: float) -> float:
        raise NotImplementedError

    def log_to_trackers(self, values: Mapping[str, float]) -> None:
        raise NotImplementedError


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Checkpointer, Counting, RunDir, list[str]]:
    run_dir, notes = RunDir.create(tmp_path / "run"), []
    logging = LoggingConfig(checkpoint_every=2, keep_checkpoints=2)
    return Checkpointer(run_dir, logging, 5, notes.append), Counting(), run_dir, notes


def train_to(checkpointer: Checkpointer, trainer: Counting, step: int) -> None:
    while trainer.step < step:
        checkpointer.before_optimizer_step()
        trainer.step += 1
        checkpointer.at_boundary(trainer)


def written(run_dir: RunDir) -> list[str]:
    return sorted(path.name for path in run_dir.checkpoints.iterdir()) if run_dir.checkpoints.exists() else []


def test_checkpoints_are_written_every_so_often_and_after_the_last_step(begun: Any) -> None:
    checkpointer, trainer, run_dir, _ = begun
    train_to(checkpointer, trainer, 5)
    assert written(run_dir) == ["step-000004", "step-000005"]


def test_a_stop_writes_what_was_captured_unless_the_weights_have_moved(begun: Any) -> None:
    checkpointer, trainer, run_dir, _ = begun
    assert not checkpointer.write_now()  # no step is done
    train_to(checkpointer, trainer, 3)
    checkpointer.before_optimizer_step()
    assert not checkpointer.write_now()
    trainer.step += 1
    checkpointer.at_boundary(trainer)
    trainer.step += 1  # in the middle of the next step, whose weights have not moved
    assert checkpointer.write_now()
    assert (written(run_dir)[-1], checkpointer.written) == ("step-000004", 4)


def test_a_disk_error_is_reported_and_the_next_checkpoint_is_tried(begun: Any) -> None:
    checkpointer, trainer, run_dir, notes = begun
    run_dir.checkpoints.write_text("in the way")
    train_to(checkpointer, trainer, 3)
    assert [note.partition(" is not written")[0] for note in notes] == ["the checkpoint of step 2"]
    run_dir.checkpoints.unlink()
    train_to(checkpointer, trainer, 4)
    assert written(run_dir) == ["step-000004"]
