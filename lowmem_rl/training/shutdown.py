"""How a run can end early: what is saved then, and what the user reads."""

import contextlib
from collections.abc import Callable, Iterator

from lowmem_rl.checkpointing.checkpointer import Checkpointer
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import resume_command
from lowmem_rl.errors import Interrupted, LowMemError, RunDirError, TrainingError
from lowmem_rl.storage.disk import retry_when_disk_full
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.training.final_report import write_final_report
from lowmem_rl.training.signals import StopSignal


class ShutdownPolicy:
    """The ends of one run in one process; a run that `is_new` may leave nothing in its directory."""

    def __init__(
        self, run_dir: RunDir, config: RunConfig, stop: StopSignal, report: Callable[[str], None], *, is_new: bool
    ) -> None:
        self.run_dir, self.config, self.stop, self.report, self.is_new = run_dir, config, stop, report, is_new

    @contextlib.contextmanager
    def report_on_exit(self) -> Iterator[None]:
        """Writes the report however the run ends. Raises `RunDirError` naming the file of the run that failed."""
        try:
            yield
        except OSError as error:
            if not str(error.filename or "").startswith(str(self.run_dir.path)):
                raise  # a bug
            what = f"{error.filename} cannot be written: {error.strerror}."
            raise RunDirError(what, hint=f"Fix that. {self._continue_hint}") from error
        finally:
            if not self.stop.is_at_once:
                with retry_when_disk_full(None):
                    write_final_report(self.run_dir, self.report)

    @contextlib.contextmanager
    def cleanup_on_failure(self) -> Iterator[None]:
        """Empties the run directory if a new run ends before its first step, so that it can be used again.

        A bug keeps it: what the libraries printed is in there. So does a pre-empted machine, which is no decision
        against the run. Raises `Interrupted` for a stop.
        """
        try:
            with self.as_interrupted("nothing is lost"):
                yield
        except LowMemError as error:
            if not self.is_new or self.stop.is_by_machine:
                raise
            self.run_dir.undo()
            if isinstance(error, Interrupted):
                what = f"Stopped by {self.stop.name} before the first step; nothing remains on the disk."
                raise Interrupted(what, hint="Start it again with the same command.") from error
            raise

    @contextlib.contextmanager
    def save_adapter_on_exit(self, save: Callable[[], None]) -> Iterator[None]:
        """Saves what was learned, however training ends; a stop does not wait for a disk.

        A `TrainingError` of `save` does not hide the error with which training ended.
        """
        has_failed = True
        try:
            with self.as_interrupted("nothing is lost"):
                yield
            has_failed = False
        finally:
            try:
                if not self.stop.is_at_once:
                    save()
            except (OSError, KeyboardInterrupt, TrainingError) as error:
                if self.stop.signal is None and not (has_failed and isinstance(error, TrainingError)):
                    raise
                self.report(f"the adapter is not saved: {str(error) or 'the disk is full'}")

    @contextlib.contextmanager
    def checkpoint_on_exit(self, checkpointer: Checkpointer) -> Iterator[None]:
        """Writes the latest snapshot of a training that ends early, unless a step has moved the weights since.

        Raises `Interrupted` for a stop.
        """
        try:
            yield
        except BaseException as error:
            is_saved = checkpointer.write_now()
            if not isinstance(error, KeyboardInterrupt):
                raise
            what = f"saved as it was after step {checkpointer.written}" if is_saved else "nothing new could be saved"
            raise self._interrupted(what if checkpointer.snapshot else "no further step was done") from error
        finally:
            self.stop.is_deferred = False

    @contextlib.contextmanager
    def as_interrupted(self, what: str) -> Iterator[None]:
        """Turns a stop into `Interrupted`, which says what became of the run."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise self._interrupted(what) from error

    def _interrupted(self, what: str) -> Interrupted:
        what = "at once: its last checkpoint is what remains" if self.stop.is_at_once else what
        return Interrupted(f"Stopped by {self.stop.name}; {what}.", hint=self._continue_hint)

    @property
    def _continue_hint(self) -> str:
        return f"Continue with: {resume_command(self.run_dir.path, self.config)}"
