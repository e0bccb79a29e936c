"""Symbolic equality in worker processes that can be killed: Math-Verify behind a time and a memory limit.

No signals are used here, so it works off the main thread, too. Workers are forked from a nursery process (`worker.py`)
that holds nothing but Math-Verify. A late worker is killed and costs one verdict; the next is there in milliseconds.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lowmem_rl.errors import RewardError, SetupError

TIME_LIMIT_S = 0.8
"""For one verdict. Math-Verify takes 2 to 200 ms where it does not run wild."""

START_LIMIT_S = 60.0
"""For the nursery to import Math-Verify: two seconds on an idle machine."""

NUM_WORKERS = 2


class WorkerDied(RewardError):
    """A worker ended by itself in the midst of a verdict."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process and the socket it listens to."""

    pid: int
    connection: socket.socket

    def ask(self, gold: str, given: str, seconds: float) -> bool:
        """Returns the verdict. Raises `TimeoutError` when it is late, `WorkerDied` when none will come."""
        self.connection.settimeout(seconds)
        try:
            self.connection.sendall(json.dumps([gold, given, seconds]).encode() + b"\n")
            answer = self.connection.recv(1)
        except TimeoutError:
            raise
        except OSError:
            answer = b""
        if not answer:
            raise WorkerDied(
                f"The symbolic worker died over the answer {given[:80]!r}.",
                hint="It is replaced; the answer is skipped.",
            )
        return answer == b"1"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.connection.close()


class ForkServer:
    """The process that forks workers. `hatch` waits until Math-Verify is imported there."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(START_LIMIT_S)
        # -P: the modules beside worker.py must not hide others of the same names.
        command = [sys.executable, "-P", str(Path(__file__).with_name("fork_server.py")), str(theirs.fileno())]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # A session of its own: Ctrl-C is the run's affair, which saves and evaluates after it.
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True, **quiet)  # type: ignore[call-overload]
        theirs.close()

    def hatch(self) -> Worker:
        """Returns a new worker. Raises `OSError` where the nursery is gone."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.control, [b"."], [theirs.fileno()])
            return Worker(self._read_pid(), ours)
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """Ends the nursery; its workers end when their sockets do."""
        self.control.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
            return
        self.process.kill()
        self.process.wait()

    def _read_pid(self) -> int:
        digits = b""
        while not digits.endswith(b"\n"):
            byte = self.control.recv(16)
            if not byte:
                raise BrokenPipeError("The nursery has ended.")
            digits += byte
        return int(digits)


class Pool:
    """At most `NUM_WORKERS` workers at a time, kept between verdicts, for any number of threads."""

    def __init__(self) -> None:
        self.timeouts = 0
        self._slots = threading.BoundedSemaphore(NUM_WORKERS)
        self._lock = threading.Lock()
        self._idle: deque[Worker] = deque()
        self._nursery = ForkServer()
        atexit.register(self.close)

    def same(self, gold: str, given: str) -> bool:
        """Says whether two LaTeX texts are equal; False where it takes longer than the limit.

        Raises `WorkerDied` when the worker crashed over them, `SetupError` when no worker can be had.
        """
        with self._slots:
            worker = self._worker()
            try:
                verdict = worker.ask(gold, given, TIME_LIMIT_S)
            except TimeoutError:
                worker.kill()
                self.timeouts += 1
                return False
            except BaseException:
                worker.kill()
                raise
            self._idle.append(worker)
            return verdict

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()
        self._nursery.close()

    def _worker(self) -> Worker:
        with suppress(IndexError):
            return self._idle.pop()
        with self._lock:
            for _ in range(2):
                try:
                    return self._nursery.hatch()
                except OSError:  # the kernel may have taken it when memory ran short
                    self._nursery.close()
                    self._nursery = ForkServer()
        raise SetupError(
            "The symbolic workers do not start.",
            hint="`python -c 'import math_verify'` tells why; reinstall math-verify.",
        )


@cache
def pool() -> Pool:
    """Returns this process's pool, and begins to load it on the first call: some seconds, in the background."""
    return Pool()


def is_available() -> bool:
    """Says whether symbolic equality can be asked for here: Math-Verify is installed, and processes can fork."""
    return hasattr(os, "fork") and find_spec("math_verify") is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # two processes at one socket would swap their verdicts
