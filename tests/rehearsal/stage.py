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
OWN_FOLDERS = (*CACHES, "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Environment variables that name folders of libraries: each server has its own."""
LOG, PID = "server.log", "pid"
"""Files in a server's folder."""
STARTED: list[subprocess.Popen[bytes]] = []
"""Servers that this process has started: a Popen that is dropped warns that its process still runs."""


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

    With a `folder` it is shared: the first process to ask starts it. It ends with the process `owner`.
    """

    def __init__(
        self, key: str, limit_s: float = REHEARSAL_S, *, folder: Path | None = None, owner: int | None = None
    ) -> None:
        self.key, self.limit_s = key, limit_s
        self.folder, self._is_own = folder or make_folder(f"rehearsal-{key}-"), folder is None
        self.address = str(self.folder / "socket")
        self._owner = owner or os.getpid()

    def start(self) -> None:
        """Starts the server, once.

        Raises `RehearsalError` with its log if it has ended, or on a machine on which no card can be simulated.
        """
        if self.key not in WITHOUT_CARD and (reason := unsupported()):
            raise RehearsalError(reason)
        with _unless_alive(self.folder) as lock:
            if lock is not None:
                self._start(lock)

    def _start(self, lock: int) -> None:
        """Starts the server with a lock that it keeps to its end, and with folders of its own."""
        own = {name: str(self.folder / name) for name in OWN_FOLDERS}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        with (self.folder / LOG).open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.rehearsal.server", self.key, self.address, str(self._owner), str(lock)],
                cwd=ROOT,
                env=inherited | _path() | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
            )
        (self.folder / PID).write_text(str(process.pid))
        STARTED.append(process)

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
        if self._is_own:
            end_server(self.folder)
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
                raise RehearsalError(f"The server of {self.key} does not answer.", (self.folder / LOG).read_text())
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
    while True:
        with _unless_alive(Path(address).parent):
            pass
        if Path(address).exists():
            return
        if time.monotonic() > end:
            raise RehearsalError("A server does not come up.", Path(address).with_name(LOG).read_text())
        time.sleep(0.05)


def end_server(folder: Path) -> None:
    """Kills the server of a folder, if it is there, and waits until it has ended."""
    with contextlib.suppress(RehearsalError):  # it has ended by itself
        while _is_alive(folder):
            with contextlib.suppress(OSError, ValueError):  # the file is not written yet
                os.kill(int((folder / PID).read_text()), signal.SIGKILL)
            time.sleep(0.02)


def _is_alive(folder: Path) -> bool:
    with _unless_alive(folder) as lock:
        return lock is None


@contextlib.contextmanager
def _unless_alive(folder: Path) -> Iterator[int | None]:
    """Yields a file to pass on to a server, which keeps it locked as long as it is there; None if one has it.

    Raises `RehearsalError` with the log of a server that has ended.
    """
    with (folder / "alive").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        if (folder / LOG).exists():
            raise RehearsalError("A server has ended.", (folder / LOG).read_text(errors="replace"))
        yield lock.fileno()


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
