"""Serves the report of a running run, to this machine only, and renders it again as rows arrive.

There is one address, `/`, with one answer: the page, or 304 if it has not changed. The run has priority: after a page
was rendered, none is rendered for ten times as long as that took.
"""

import sys
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

from lowmem_rl.errors import RunDirError, SetupError
from lowmem_rl.reports.html import policy, render, render_notice
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.storage.run_dir import RunDir

_LOOPBACK = "127.0.0.1"
_FIRST_PORT, _PORTS_TRIED = 8420, 20
_REST = 10
"""Pause after a page was rendered, as a multiple of the time that it took."""
_CHECK_EVERY_S = 1.0
_GRACE_S = 8.0
"""For so long the server continues after the end of the run, so that an open page asks once more."""
_IDLE_S = 10
"""A connection that is silent for so long is closed."""
_HTML, _TEXT = {"Content-Type": "text/html; charset=utf-8"}, {"Content-Type": "text/plain"}
_FIXED = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Audit = Callable[[RunRecord], RunRecord]


class PageState(NamedTuple):
    """A page, its ETag, and whether it is the run's last."""

    body: bytes
    tag: str
    is_last: bool


class Follower:
    """The page of one run, rendered again if its files have changed; several threads may ask."""

    def __init__(self, path: Path, audited: Audit = lambda record: record) -> None:
        self.run = RunDir(path)
        self.audited = audited
        self.lock = Lock()
        self.answer = PageState(b"", "", False)
        self.rests_until = 0.0

    def page(self) -> PageState:
        """Returns the page as it is now, or was a moment ago."""
        with self.lock:
            began = time.monotonic()
            has_ended = self.has_ended
            if began >= self.rests_until or has_ended:
                tag = f'"{self._state()}"'
                if tag != self.answer.tag:
                    self.answer = PageState(self._render().encode("utf-8", "replace"), tag, has_ended)
                    self.rests_until = began + (1 + _REST) * (time.monotonic() - began)
            return self.answer

    @property
    def has_ended(self) -> bool:
        """The audit is the last file that a run writes, however it ended; a resumed run has newer rows."""
        return self.run.health.exists() and _stamp(self.run.health)[0] >= _stamp(self.run.metrics)[0]

    def _state(self) -> str:
        """Returns a hash that changes with any file that the page shows."""
        folders = (self.run.path, self.run.eval_items("").parent)
        files = sorted(file for folder in folders for file in folder.glob("*.json*"))
        return sha256(repr([(str(file), _stamp(file)) for file in files]).encode()).hexdigest()[:32]

    def _render(self) -> str:
        name = self.run.path.resolve().name
        if not self.run.config.exists():
            return render_notice(name, "The run has not begun", f"Nothing is in {self.run.path} yet.")
        try:
            return render(self.audited(read_record(self.run.path)), followed=True)
        except RunDirError as error:
            return render_notice(name, str(error), error.hint)


def follow(
    path: Path,
    port: int | None,
    report: Callable[[str], None],
    audited: Audit = lambda record: record,
    *,
    grace_s: float = _GRACE_S,
) -> None:
    """Serves a run's page until the run has ended; `report` gets the address. A finished run is not served.

    Raises `RunDirError` if there is no directory, `SetupError` if the port is taken.
    """
    if not path.is_dir():
        raise RunDirError(f"{path} is not a directory.", hint="`train` prints where a run is.")
    follower = Follower(path, audited)
    if follower.has_ended:
        return
    server = _server(follower, port)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        report(f"http://{_LOOPBACK}:{server.server_address[1]}/")
        while not follower.has_ended:
            time.sleep(_CHECK_EVERY_S)
        time.sleep(grace_s)
    finally:
        server.shutdown()
        server.server_close()


def _server(follower: Follower, port: int | None) -> "LiveServer":
    reason = ""
    for number in [port] if port is not None else [*range(_FIRST_PORT, _FIRST_PORT + _PORTS_TRIED), 0]:
        try:
            return LiveServer(follower, number)
        except OSError as error:
            reason = error.strerror or str(error)
    raise SetupError(f"Port {port} cannot be used: {reason}.", hint="Give another with --port, or leave it out.")


class LiveServer(ThreadingHTTPServer):
    """Listens on loopback; resolves no host name, and is silent about clients that left."""

    server_bind = TCPServer.server_bind

    def __init__(self, follower: Follower, port: int) -> None:
        super().__init__((_LOOPBACK, port), PageHandler)
        self.follower = follower
        self.names = {f"{host}:{self.server_address[1]}" for host in (_LOOPBACK, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class PageHandler(BaseHTTPRequestHandler):
    """Answers with the page, and nothing else."""

    server: LiveServer
    timeout = _IDLE_S
    server_version, sys_version = "lowmem-rl", ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.names:
            # DNS rebinding: the script of another page is asking.
            self._send(421, b"This server answers only to its own address.\n", _TEXT)
        elif self.path != "/":
            self._send(404, b"There is only /.\n", _TEXT)
        else:
            answer = self.server.follower.page()
            about = {"ETag": answer.tag, "X-Run-Ended": "yes" if answer.is_last else "no"}
            if self.headers.get("If-None-Match") == answer.tag:
                self._send(304, b"", about)
            else:
                self._send(200, answer.body, _HTML | about)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        policies = {"Content-Security-Policy": f"{policy(followed=True)}; frame-ancestors 'none'"}
        sized = {"Content-Length": str(len(body))} if body else {}
        for name, value in (_FIXED | policies | sized | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the terminal shows the address."""


def _stamp(path: Path) -> tuple[int, int]:
    """Returns when a file was last changed, in ns, and its size."""
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (0, 0)
