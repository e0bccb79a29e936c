"""Symbolic equality in worker processes: Math-Verify with a limit on CPU time and memory.

This process uses no signals, so a verdict can be asked for on any thread. Each worker imports Math-Verify once and
forks a child that computes, so the next verdict after a late one waits for milliseconds.
"""

import atexit
import os
import threading
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lowmem_rl.errors import RewardError, SetupError
from lowmem_rl.workers import JsonWorker, WorkerFailed

CPU_LIMIT_S = 0.9
"""CPU time for one verdict, so that the machine's load decides none. Math-Verify usually takes 2 to 200 ms."""

WALL_LIMIT_S = 60.0
"""Wall-clock time for one verdict: a bound on the wait if the machine is overloaded or the worker sleeps."""

START_LIMIT_S = 60.0
"""For a worker to import Math-Verify: two seconds on an idle machine."""

NUM_WORKERS = 2
DIED, LATE = "died", "late"


class WorkerDied(RewardError):
    """A worker ended by itself while it computed a verdict."""


class Pool:
    """At most `NUM_WORKERS` workers at a time, kept between verdicts, for any number of threads."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(NUM_WORKERS)
        self._idle = [_start_worker()]
        atexit.register(self.close)

    def same(self, gold: str, given: str) -> bool | None:
        """Returns whether two LaTeX texts are equal; None if that takes longer than the limits.

        Raises `WorkerDied` if a worker crashed over them, `SetupError` if none starts.
        """
        with self._slots:
            for start in (self._take, _start_worker):  # the kernel may have killed the first when memory ran short
                worker = start()
                try:
                    verdict = worker.ask([gold, given, CPU_LIMIT_S, WALL_LIMIT_S], START_LIMIT_S + WALL_LIMIT_S)
                except WorkerFailed:
                    continue
                self._idle.append(worker)
                if verdict == DIED:
                    what = f"The symbolic worker died over the answer {given[:80]!r}."
                    raise WorkerDied(what, hint="It is replaced; the answer is skipped.")
                return None if verdict == LATE else verdict is True
        hint = "`python -c 'import math_verify'` says why; reinstall math-verify."
        raise SetupError("The symbolic workers do not start.", hint=hint)

    def close(self) -> None:
        """Ends the workers that are idle; the others end with this process."""
        with suppress(IndexError):
            while True:
                self._idle.pop().kill()

    def _take(self) -> JsonWorker:
        with suppress(IndexError):
            return self._idle.pop()
        return _start_worker()


@cache
def pool() -> Pool:
    """Returns this process's pool; the first call starts to load it in the background, which takes some seconds."""
    return Pool()


def is_available() -> bool:
    """Returns whether symbolic equality works here: Math-Verify is installed, and processes can fork."""
    return hasattr(os, "fork") and find_spec("math_verify") is not None


def _start_worker() -> JsonWorker:
    return JsonWorker("lowmem_rl.verify.pool_worker", Path(os.devnull))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # two processes at one socket would swap their verdicts
