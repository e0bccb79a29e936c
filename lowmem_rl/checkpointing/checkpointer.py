"""When a training is saved: now and then, at its end, and when it is stopped in the midst of a step."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import write_checkpoint
from lowmem_rl.checkpointing.trainer_state import TrainerSnapshot, save_snapshot, take_snapshot
from lowmem_rl.config.run_config import LoggingConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.storage.disk import retry_when_disk_full
from lowmem_rl.storage.run_dir import RunDir

EVERY_S = 600.0
"""Between two checkpoints, where no number of steps is set. What a lost machine costs is then at most ten minutes,
whatever a step takes. The cheapest interval is sqrt(2 x cost of one x time between losses) (J. W. Young, CACM 17,
1974): were one written in 3 s and a machine lost every twelve hours, eight and a half minutes."""


class Checkpointer:
    """Takes each border of a training, and writes those that are to last. `counts` gives what we count ourselves."""

    def __init__(
        self,
        run_dir: RunDir,
        logging: LoggingConfig,
        policy: Policy,
        counts: Callable[[], dict[str, Any]],
        tell: Callable[[str], None],
    ) -> None:
        self.run_dir, self.logging, self.policy, self.counts, self.tell = run_dir, logging, policy, counts, tell
        self.trainer: Any = None
        self.border: TrainerSnapshot | None = None
        self.written: int | None = None
        """The step of the last checkpoint of this process."""
        self.last_s = time.monotonic()

    def take(self, trainer: Any) -> None:
        """Takes the present border."""
        self.trainer, self.border = trainer, take_snapshot(trainer, self.counts())

    def write_if_due(self, step: int, *, is_last: bool) -> None:
        """Writes the border that was taken last, if it is time; a disk that fails is told of and costs no training."""
        every = self.logging.checkpoint_every
        is_due = step % every == 0 if every else time.monotonic() - self.last_s >= EVERY_S
        if is_due or is_last:
            self._try_to_write()

    def write_now(self) -> bool:
        """Writes the last border, once and without waiting for room; says whether it is on the disk."""
        with retry_when_disk_full(None):
            return self._try_to_write()

    def _try_to_write(self) -> bool:
        border = self.border
        if border is None:
            return False
        if border.step != self.written:
            fill = partial(save_snapshot, border, self.trainer, self.policy)
            try:
                write_checkpoint(self.run_dir, border.step, fill, self.logging.keep_checkpoints)
            except Exception as error:  # noqa: BLE001  # whatever keeps it from the disk, what was learnt is still here
                self.tell(f"the checkpoint of step {border.step} is not written: {error}")
                return False
            self.written, self.last_s = border.step, time.monotonic()
        return True
