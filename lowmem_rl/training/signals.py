"""Signals that ask a run to stop: the first one saves, a second Ctrl-C stops at once.

SIGINT is Ctrl-C, SIGTERM what a machine that is taken away sends some thirty seconds before, SIGHUP a terminal that
was closed. A step may take minutes, so it is abandoned: what is saved is the run at the border of its last step.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
LOOK_S = 0.2
"""How long a wait may go on that does not see a signal."""
ECHO_S = 1.0
"""One Ctrl-C may come twice within, from the terminal and through a program that started this one."""


class StopSignal:
    """Whether the run was asked to stop, by which signal, and whether it may be torn away from where it is."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.asked_s = 0.0
        self.is_held = False
        self.is_at_once = False
        """True after a second Ctrl-C: nothing more is to be saved."""

    @property
    def name(self) -> str:
        """What asked, in the user's words."""
        return "Ctrl-C" if self.signal in (None, signal.SIGINT) else self.signal.name

    @property
    def is_by_machine(self) -> bool:
        """True if nobody decided against this run: it is to be gone on with."""
        return self.signal not in (None, signal.SIGINT)

    def hold(self) -> None:
        """Lets a stop wait: between the optimizer's step and its record the run is in no state to be saved."""
        self.is_held = True

    def release(self) -> None:
        """Lets stops through again. Raises `KeyboardInterrupt` where one has come, also one that a library ate."""
        self.is_held = False
        if self.signal is not None:
            raise KeyboardInterrupt

    def sleep(self, seconds: float) -> None:
        """Waits, held or not, until it is over or a stop comes: then `KeyboardInterrupt` is raised."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_S))
            if self.signal is not None:
                raise KeyboardInterrupt

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if self.signal is None:
            self.signal, self.asked_s = signal.Signals(number), time.monotonic()
            if not self.is_held:
                raise KeyboardInterrupt
        elif number == signal.SIGINT and time.monotonic() - self.asked_s > ECHO_S:
            self.is_at_once = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def handle_stop_signals() -> Iterator[StopSignal]:
    """Yields what hears the signals, in the main thread; elsewhere they are the caller's affair."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # One that is ignored stays so: nohup ignores SIGHUP.
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.take)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
