"""When a training is saved: every so often, at its end, and when it is stopped in the middle of a step."""

import time
from collections.abc import Callable
from functools import partial

from lowmem_rl.checkpointing.checkpoint_storage import write_checkpoint
from lowmem_rl.checkpointing.trainer_state import TrainerLike, TrainerSnapshot
from lowmem_rl.config.run_config import LoggingConfig
from lowmem_rl.storage.disk import retry_when_disk_full
from lowmem_rl.storage.run_dir import RunDir

EVERY_S = 600.0
"""Between two checkpoints if no number of steps is set. A lost machine then costs at most ten minutes, whatever a step
takes. The cheapest interval is sqrt(2 x cost of one x time between losses) (J. W. Young, CACM 17, 1974): if one is
written in 3 s and a machine is lost every twelve hours, eight and a half minutes."""


class Checkpointer:
    """Captures the trainer's state after each step, and writes it if a checkpoint is due."""

    def __init__(self, run_dir: RunDir, logging: LoggingConfig, last_step: int, report: Callable[[str], None]) -> None:
        self.run_dir, self.logging, self.last_step, self.report = run_dir, logging, last_step, report
        self.trainer: TrainerLike | None = None
        self.snapshot: TrainerSnapshot | None = None
        self.is_current = False
        """True while no optimizer step has moved the weights since the snapshot: it can be written."""
        self.written: int | None = None
        """The step of the last checkpoint of this process."""
        self.last_s = time.monotonic()

    def before_optimizer_step(self) -> None:
        """The snapshot does not fit the weights any more."""
        self.is_current = False

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Captures, and writes a checkpoint if one is due. A disk error is reported and does not stop training."""
        self.trainer, self.snapshot, self.is_current = trainer, trainer.take_snapshot(), True
        every = self.logging.checkpoint_every
        is_due = trainer.step % every == 0 if every else time.monotonic() - self.last_s >= EVERY_S
        if is_due or trainer.step == self.last_step:
            self._write()

    def write_now(self) -> bool:
        """Writes the snapshot, if it is current, without waiting for space; returns whether it is on the disk."""
        with retry_when_disk_full(None):
            return self.is_current and self._write()

    def _write(self) -> bool:
        if self.snapshot is None or self.trainer is None:
            return False
        step = self.snapshot.step
        if step != self.written:
            fill = partial(self.trainer.save_snapshot, self.snapshot)
            try:
                write_checkpoint(self.run_dir, step, fill, self.logging.keep_checkpoints)
            except Exception as error:  # noqa: BLE001  # whatever goes wrong, what was learned is still in memory
                self.report(f"the checkpoint of step {step} is not written: {error}")
                return False
            self.written, self.last_s = step, time.monotonic()
        return True
