"""A simulated card to rehearse on: `stage.call(function, ...)`, `stage.lowmem("train", ...)`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

from tests.rehearsal.card.state import Report
from tests.rehearsal.request import Answer, Request, Settings
from tests.rehearsal.server import WITHOUT_CARD

ROOT = Path(__file__).parents[2]
START_S, REHEARSAL_S = 300, 300
LONGEST_PLACE = 60

CACHES = ("UNSLOTH_COMPILE_LOCATION", "HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")
"""Environment variables that name folders of libraries: each server has its own."""


@dataclass(frozen=True)
class Ended:
    """How a command ended on the card."""

    code: int
    output: str
    report: Report


class RehearsalError(Exception):
    """What was called raised, or its process died: the traceback, and the end of what it printed."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(f"{reason}\n{output[-3000:]}")
        self.reason = reason.strip().splitlines()[-1]
        """One line."""


class Died(RehearsalError):
    """The rehearsal's process ended without an answer."""


def unsupported() -> str:
    """Returns why no card can be simulated here, "" if one can (`card.autograd_engine`)."""
    if (platform.machine(), sys.platform) != ("x86_64", "linux"):
        return "a card is simulated on Linux and x86-64 alone"
    torch = find_spec("torch")
    libraries = Path(torch.origin).parent / "lib" if torch and torch.origin else Path()
    return "" if (libraries / "libc10_cuda.so").exists() else "this torch is built without CUDA"


class Stage:
    """A card with a server: `start` begins in the background what the first call waits for.

    In `folder` it is shared: the first process that starts it there does, and it ends with the process `owner`.
    """

    def __init__(
        self, key: str, limit_s: float = REHEARSAL_S, *, folder: Path | None = None, owner: int | None = None
    ) -> None:
        self.key, self.limit_s = key, limit_s
        self.folder, self._is_own = folder or make_folder(f"rehearsal-{key}-"), folder is None
        self.address = str(self.folder / "socket")
        self.log = self.folder / "server.log"
        self._owner = owner or os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, once. Raises `RehearsalError` on a machine on which no card can be simulated."""
        if Path(self.address).exists():
            return
        if self.key not in WITHOUT_CARD and (reason := unsupported()):
            raise RehearsalError(reason)
        with _unless_alive(self.folder) as lock:
            if lock is not None:
                self._process = self._started(lock)

    def _started(self, lock: int) -> subprocess.Popen[bytes]:
        """Starts the server with a lock that it keeps to its end, and with caches of its own."""
        caches = {name: str(self.folder / name) for name in CACHES}
        with self.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.rehearsal.server", self.key, self.address, str(self._owner)],
                cwd=ROOT,
                env=os.environ | _path() | caches,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
            )

    def call(self, function: Callable[..., Any] | str, *args: Any, **settings: Any) -> Any:
        """Returns what a function of a module returns on the card. Raises `RehearsalError` with its traceback.

        `settings` are those of `request.Settings`; `before` may be a function.
        """
        answer, output = self._ask(_name(function), args, settings)
        if answer.error:
            raise RehearsalError(answer.error, output)
        return answer.result

    def lowmem(self, *command: str, **settings: Any) -> Ended:
        """Runs a lowmem-rl command on the card."""
        answer, output = self._ask("tests.rehearsal.child:lowmem", command, settings)
        if answer.error:
            raise RehearsalError(answer.error, output)
        return Ended(answer.result, output, answer.report)

    def close(self) -> None:
        """Ends the server, unless it is shared."""
        if not self._is_own:
            return
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ask(self, function: str, args: tuple[Any, ...], settings: dict[str, Any]) -> tuple[Answer, str]:
        if "before" in settings:
            settings["before"] = _name(settings["before"])
        self.wait_until_ready()
        with tempfile.NamedTemporaryFile("r", dir=self.folder, suffix=".log", errors="replace") as output:
            request = Request(function, args, Settings(**settings), str(Path.cwd()), output.name)
            answer, text = self._answered(request), output.read()
        if answer is None:
            raise Died("The rehearsal's process died.", text)
        return answer, text

    def _answered(self, request: Request) -> Answer | None:
        """Returns None if the process died, for example from a signal."""
        with Client(self.address, "AF_UNIX") as connection:
            connection.send(request)
            if not connection.poll(START_S):
                raise RehearsalError(f"The server of {self.key} does not answer.", self.log.read_text())
            child = connection.recv()
            if not connection.poll(self.limit_s):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # it leads a group of its own
                raise RehearsalError(f"{request.function} took more than {self.limit_s:g} s.")
            try:
                return connection.recv()
            except EOFError:
                return None

    def wait_until_ready(self) -> None:
        """Starts the server if that is left to do. Raises `RehearsalError` with its log if it does not come up."""
        self.start()
        wait_until_ready(self.address)


def wait_until_ready(address: str) -> None:
    """Returns when the server that has been started is up. Raises `RehearsalError` with its log if it is not."""
    end = time.monotonic() + START_S
    while not Path(address).exists():
        with _unless_alive(Path(address).parent) as lock:
            if lock is not None or time.monotonic() > end:
                raise RehearsalError("A server does not start.", Path(address).with_name("server.log").read_text())
        time.sleep(0.05)


@contextlib.contextmanager
def _unless_alive(folder: Path) -> Iterator[int | None]:
    """Yields a file to pass on to a server, which keeps it locked as long as it is there; None if one has it."""
    with (folder / "alive").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield lock.fileno()
        except BlockingIOError:
            yield None


def make_folder(prefix: str) -> Path:
    """Makes a temporary folder for a server, with a short path: that of a socket has 108 bytes at most (unix(7))."""
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST_PLACE else "/tmp"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=place))


def _path() -> dict[str, str]:
    """Lets the server import what this process does."""
    known = filter(None, [str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join(known)}


def _name(function: Callable[..., Any] | str) -> str:
    return function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
