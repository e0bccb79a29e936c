"""How a run ends when it does not come to its end: undone, saved or kept, and what is told of it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lowmem_rl.errors import Interrupted, LowMemError, RunDirError
from lowmem_rl.runs import RunDir
from lowmem_rl.training.keeping import Keeper
from lowmem_rl.training.stopping import Stop


class Ending:
    """What a run's directory holds when the run is stopped, or fails, in one of its parts."""

    def __init__(self, run_dir: RunDir, stop: Stop, tell: Callable[[str], None], *, is_new: bool) -> None:
        self.run_dir, self.stop, self.tell, self.is_new = run_dir, stop, tell, is_new

    @contextlib.contextmanager
    def undone_if_it_fails(self) -> Iterator[None]:
        """Empties the run directory where a new run ends before its first step, so that `out` can be used again.

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
    def saved_at_the_end(self, save: Callable[[], None]) -> Iterator[None]:
        """Saves what was learnt however training ends; a stop does not fail for want of that."""
        try:
            with self.told_if_interrupted("nothing is lost"):
                yield
        finally:
            if not self.stop.is_at_once:
                self._try(save)

    @contextlib.contextmanager
    def kept_if_it_ends(self, trainer: Any, keeper: Keeper) -> Iterator[None]:
        """Saves the last border of a training that ends early, unless a step has moved the weights beyond it."""
        try:
            yield
        except BaseException as error:
            is_kept = not self.stop.is_held and keeper.write_now(trainer)
            if not isinstance(error, KeyboardInterrupt):
                raise
            what = f"saved as it was behind step {keeper.written}" if is_kept else "nothing new could be saved"
            raise self._interrupted(what if keeper.border else "no further step was done") from error
        finally:
            self.stop.is_held = False

    @contextlib.contextmanager
    def told_if_interrupted(self, what: str) -> Iterator[None]:
        """Raises `Interrupted` for a KeyboardInterrupt; `what` says how things stand then."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise self._interrupted(what) from error

    @contextlib.contextmanager
    def told_if_unwritable(self) -> Iterator[None]:
        """Raises `RunDirError` for an error in the run directory; any other is a bug."""
        try:
            yield
        except OSError as error:
            if not str(error.filename or "").startswith(str(self.run_dir.path)):
                raise
            what = f"{error.filename} cannot be written: {error.strerror}."
            raise RunDirError(what, hint=f"Mend that. {self._go_on}") from error

    def _try(self, save: Callable[[], None]) -> None:
        try:
            save()
        except (OSError, KeyboardInterrupt) as error:
            if self.stop.signal is None:
                raise
            self.tell(f"the adapter is not saved: {error}")

    def _interrupted(self, what: str) -> Interrupted:
        what = "at once: its last checkpoint is what there is" if self.stop.is_at_once else what
        return Interrupted(f"Stopped by {self.stop.name}; {what}.", hint=self._go_on)

    @property
    def _go_on(self) -> str:
        return f"Go on with: lowmem-rl train --resume --out {self.run_dir.path}"
