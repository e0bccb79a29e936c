"""How a run can end before its end, what is kept then, and what its user is told."""

import contextlib
from collections.abc import Callable, Iterator

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.errors import Interrupted, LowMemError, RunDirError, TrainingError
from lowmem_rl.storage.disk import retry_when_disk_full
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.training.signals import StopSignal


class ShutdownPolicy:
    """The endings of one run in one process; a run that `is_new` may leave nothing behind."""

    def __init__(self, run_dir: RunDir, stop: StopSignal, tell: Callable[[str], None], *, is_new: bool) -> None:
        self.run_dir, self.stop, self.tell, self.is_new = run_dir, stop, tell, is_new

    @contextlib.contextmanager
    def looked_back_on(self, look_back: Callable[[], None]) -> Iterator[None]:
        """Looks back on the run however it ends, and names the file where one of its own cannot be written."""
        try:
            yield
        except OSError as error:
            if not str(error.filename or "").startswith(str(self.run_dir.path)):
                raise  # a bug
            what = f"{error.filename} cannot be written: {error.strerror}."
            raise RunDirError(what, hint=f"Mend that. {self._go_on}") from error
        finally:
            if not self.stop.is_at_once:
                with retry_when_disk_full(None):
                    look_back()

    @contextlib.contextmanager
    def undone_if_it_fails(self) -> Iterator[None]:
        """Empties the run directory where a new run ends before its first step, so that it can be used again.

        A bug keeps it: what the libraries said is in there. So does a machine that is taken away, which is no
        decision against the run.
        """
        try:
            with self.told_if_interrupted("nothing is lost"):
                yield
        except LowMemError as error:
            if not self.is_new or self.stop.is_by_machine:
                raise
            self.run_dir.undo()
            if isinstance(error, Interrupted):
                what = f"Stopped by {self.stop.name} before the first step; nothing is left behind."
                raise Interrupted(what, hint="Start it again with the same command.") from error
            raise

    @contextlib.contextmanager
    def saved(self, save: Callable[[], None]) -> Iterator[None]:
        """Saves what was learnt, however training ends; a stop does not wait for a disk.

        What `save` raises for lack of memory does not hide what training ended with.
        """
        has_failed = True
        try:
            with self.told_if_interrupted("nothing is lost"):
                yield
            has_failed = False
        finally:
            try:
                if not self.stop.is_at_once:
                    save()
            except (OSError, KeyboardInterrupt, TrainingError) as error:
                if self.stop.signal is None and not (has_failed and isinstance(error, TrainingError)):
                    raise
                self.tell(f"the adapter is not saved: {str(error) or 'the disk is full'}")

    @contextlib.contextmanager
    def kept(self, keeper: Checkpointer) -> Iterator[None]:
        """Writes the last border of a training that ends early, unless a step has moved the weights beyond it."""
        try:
            yield
        except BaseException as error:
            is_kept = not self.stop.is_held and keeper.write_now()
            if not isinstance(error, KeyboardInterrupt):
                raise
            what = f"saved as it was behind step {keeper.written}" if is_kept else "nothing new could be saved"
            raise self._interrupted(what if keeper.border else "no further step was done") from error
        finally:
            self.stop.is_held = False

    @contextlib.contextmanager
    def told_if_interrupted(self, what: str) -> Iterator[None]:
        """Turns a stop into the error that says what became of the run."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise self._interrupted(what) from error

    def _interrupted(self, what: str) -> Interrupted:
        what = "at once: its last checkpoint is what there is" if self.stop.is_at_once else what
        return Interrupted(f"Stopped by {self.stop.name}; {what}.", hint=self._go_on)

    @property
    def _go_on(self) -> str:
        return f"Go on with: lowmem-rl train --resume --out {self.run_dir.path}"
