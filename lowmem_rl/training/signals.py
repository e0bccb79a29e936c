"""Stopping a run: signals, and findings that ask for a stop. The first Ctrl-C saves, a second one stops at once.

SIGINT is Ctrl-C; SIGTERM is what a pre-empted machine sends some thirty seconds before its end; SIGHUP means that the
terminal was closed. SIGUSR1 is the warning that Slurm sends before a job's time is over (`sbatch --signal=USR1@120`;
https://slurm.schedmd.com/sbatch.html), SIGUSR2 submitit's: the run ends, saved, and the job script can queue it again.
A step may take minutes, so it is abandoned: what is saved is the run after its last whole step.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.errors import TrainingError

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # Windows has the first two
POLL_S = 0.2
"""How long a wait may sleep without seeing a signal."""
ECHO_S = 1.0
"""One Ctrl-C may arrive twice within, from the terminal and through a program that started this one."""


class StopSignal:
    """Whether a stop was asked for, by which signal, and whether it is deferred."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.error: TrainingError | None = None
        self.received_s = 0.0
        self.is_deferred = False
        self.is_at_once = False
        """True after a second Ctrl-C: nothing more is saved."""

    @property
    def name(self) -> str:
        """What asked, in the user's words."""
        return "Ctrl-C" if self.signal in (None, signal.SIGINT) else self.signal.name

    @property
    def is_by_machine(self) -> bool:
        """True if nobody decided against this run: it is to be resumed."""
        return self.signal not in (None, signal.SIGINT)

    def request(self, error: TrainingError) -> None:
        """Asks for a stop with `error` at this boundary, once the run is saved."""
        self.error = error

    def before_optimizer_step(self) -> None:
        """Defers a stop: between the optimizer's step and the snapshot after it the run cannot be saved."""
        self.is_deferred = True

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Delivers a stop. Raises `KeyboardInterrupt` for a signal, also for one that a library swallowed."""
        self.is_deferred = False
        if self.signal is not None:
            raise KeyboardInterrupt
        if self.error is not None:
            raise self.error

    def sleep(self, seconds: float) -> None:
        """Waits until the time is over; raises `KeyboardInterrupt` on a stop, deferred or not."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            if self.signal is not None:
                raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if self.signal is None:
            self.signal, self.received_s = signal.Signals(number), time.monotonic()
            if not self.is_deferred:
                raise KeyboardInterrupt
        elif number == signal.SIGINT and time.monotonic() - self.received_s > ECHO_S:
            self.is_at_once = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def handle_stop_signals() -> Iterator[StopSignal]:
    """Installs the signal handlers and yields the `StopSignal`; in other threads than the main one it never fires."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # An ignored signal stays ignored: nohup ignores SIGHUP.
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
