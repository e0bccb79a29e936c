"""Python processes that answer requests and can be killed: one JSON line in, one JSON line out.

The lines have a socket of their own, so what a worker's code and its libraries print never mixes with them.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from lowmem_rl.errors import LowMemError

_EXIT_TIMEOUT_S = 10.0
"""For a worker that has closed its socket: it may have a traceback to print."""


class WorkerFailed(LowMemError):
    """The worker has ended without an answer, with exit code `code`; None if it was killed for being late."""

    def __init__(self, what: str, code: int | None = None) -> None:
        super().__init__(f"The worker {what}.")
        self.code = code


class RequestFailed(LowMemError):
    """The worker answered with a `LowMemError`, whose exit code is `code`."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class JsonWorker:
    """A process that runs `module`, for one thread at a time; the end of a `with` block kills it.

    Its output goes to `log`, or to standard error. It needs a POSIX system.
    """

    def __init__(self, module: str, log: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.log, self._caller = log, os.getpid()
        self._socket, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        self._lifeline = open(write_end, "wb", 0)  # noqa: SIM115 - its end, with this process, is what the worker sees
        try:
            self._process = self._started(module, theirs, read_end, env)
        except BaseException:
            self._socket.close()
            self._lifeline.close()
            raise

    def _started(
        self, module: str, theirs: socket.socket, read_end: int, env: Mapping[str, str] | None
    ) -> "subprocess.Popen[bytes]":
        with (
            theirs,
            open(read_end, "rb", 0) as lifeline,
            self.log.open("ab") if self.log else contextlib.nullcontext(2) as output,
        ):
            # -P: no file of the working directory hides a module. A session of its own: Ctrl-C is the caller's alone,
            # and what the worker starts is killed with it.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(lifeline.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                pass_fds=[theirs.fileno(), lifeline.fileno()],
                start_new_session=True,
            )

    def ask(self, request: Any, timeout_s: float | None = None) -> Any:
        """Returns the answer to a request. Raises `WorkerFailed`, or `RequestFailed` if it can be asked again."""
        self.send(request, timeout_s)
        return self.receive(timeout_s)

    def send(self, request: Any, timeout_s: float | None = None) -> None:
        """Sends a request whose answer is received before the next one is sent. Raises `WorkerFailed` if late."""
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except ConnectionError:
            pass  # `receive` finds it, too
        except BaseException as error:  # noqa: BLE001 - Ctrl-C, too
            raise self._end_after(error) from None

    def receive(self, timeout_s: float | None = None) -> Any:
        """Returns the answer to the last request. Raises what `ask` raises."""
        line = b""
        try:
            self._socket.settimeout(timeout_s)
            while not line.endswith(b"\n"):
                if not (part := self._socket.recv(1 << 16)):
                    raise ConnectionResetError
                line += part
        except BaseException as error:  # noqa: BLE001 - Ctrl-C, too
            raise self._end_after(error) from None
        answer = json.loads(line.decode())
        if "error" in answer:
            raise RequestFailed(answer["error"], answer["hint"], answer["code"])
        return answer["answer"]

    def kill(self, after_s: float = 0.0) -> None:
        """Ends the process, if it has not ended `after_s` from now, and all that it has started."""
        self._socket.close()
        if self._process.returncode is None and os.getpid() == self._caller:  # no forked copy of the caller
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(after_s)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the second on macOS, if it has ended
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._lifeline.close()  # last: a worker that has a traceback to print is not ended before it has

    def last_lines(self, count: int) -> list[str]:
        """Returns the last lines of the log."""
        return self.log.read_text("utf-8", "replace").strip().splitlines()[-count:] if self.log else []

    def _end_after(self, error: BaseException) -> BaseException:
        """Ends the worker, whose answer would be taken for the next one, and returns what to raise for an error."""
        if isinstance(error, TimeoutError):
            error = WorkerFailed(f"has not answered for {self._socket.gettimeout():g} s")
        elif isinstance(error, OSError):
            self.kill(_EXIT_TIMEOUT_S)
            error = WorkerFailed(f"ended with code {self._process.returncode}", self._process.returncode)
        self.kill()
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


class Requests:
    """The worker's end, in its main thread: reads requests and answers each.

    The only event on the lifeline, a pipe into which nothing is written, is the end of the caller. Linux then sends
    SIGIO to the worker and to what it has started. It ends a worker that computes for nobody, even
    one that holds the interpreter's lock.
    """

    def __init__(self) -> None:
        import fcntl  # missing on Windows, where this module can be imported

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # a caller may have ignored it
        self._socket = socket.socket(fileno=int(sys.argv[1]))
        self._socket.set_inheritable(False)
        self._lifeline = open(int(sys.argv[2]), "rb", 0)  # noqa: SIM115 - open for as long as the process lives
        os.set_inheritable(self._lifeline.fileno(), False)
        self._lines = self._socket.makefile("rb")
        flags = fcntl.fcntl(self._lifeline, fcntl.F_GETFL)
        fcntl.fcntl(self._lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(self._lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    def read(self) -> Any:
        """Returns the next request, None if the caller is gone."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def answer(self, answer: Any) -> None:
        """Answers the last request."""
        self._send({"answer": answer})

    def fail(self, error: LowMemError) -> None:
        """Answers the last request with an error."""
        self._send({"error": str(error), "hint": error.hint, "code": error.exit_code})

    def _send(self, answer: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the caller is gone, as the next read will find
            self._socket.sendall(json.dumps(answer).encode() + b"\n")


def serve(answer: Callable[[Any], Any]) -> None:
    """Answers requests until the caller is gone; a `LowMemError` is an answer, too."""
    requests = Requests()
    while (request := requests.read()) is not None:
        try:
            requests.answer(answer(request))
        except LowMemError as error:
            requests.fail(error)
