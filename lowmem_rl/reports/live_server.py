"""Serves the report of a run that is going on, to this machine alone, and renews it as rows arrive.

One address, `/`, and one answer: the page. Whoever asks again is told in a few bytes where nothing has changed.
The run goes first: after a page has been made, none is made for ten times as long as that took.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any

from lowmem_rl.errors import RunDirError, SetupError
from lowmem_rl.reports.html import policy, render, render_notice
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.storage.run_dir import RunDir

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS_TRIED = 8420, 20
REST = 10
"""Times as long as a page took to make that none is made."""
LOOK_EVERY_S = 1.0
GRACE_S = 8.0
"""Served on after the run's end, so that an open page asks once more."""
MOST_WAITING_S = 10
"""A connection that says nothing for so long is closed."""
HTML, TEXT = {"Content-Type": "text/html; charset=utf-8"}, {"Content-Type": "text/plain"}
FIXED = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Audit = Callable[[RunRecord], RunRecord]


@dataclass(frozen=True, slots=True)
class PageState:
    """A page, what names its state, and whether it is the run's last."""

    body: bytes
    tag: str
    is_last: bool


class Follower:
    """The page of one run, made anew where its files have changed; several threads may ask."""

    def __init__(self, path: Path, audited: Audit = lambda record: record) -> None:
        self.run = RunDir(path)
        self.audited = audited
        self.lock = Lock()
        self.answer = PageState(b"", "", False)
        self.rests_until = 0.0

    def page(self) -> PageState:
        """Returns the page as it is now, or as it was a moment ago."""
        with self.lock:
            began = time.monotonic()
            has_ended = self.has_ended
            if began >= self.rests_until or has_ended:
                tag = f'"{self._state()}"'
                if tag != self.answer.tag:
                    self.answer = PageState(self._rendered().encode("utf-8", "replace"), tag, has_ended)
                    self.rests_until = began + (1 + REST) * (time.monotonic() - began)
            return self.answer

    @property
    def has_ended(self) -> bool:
        """The audit is the last that a run writes, however it ended; one that goes on has newer rows."""
        return self.run.health.exists() and _changed(self.run.health) >= _changed(self.run.metrics)

    def _state(self) -> str:
        """Returns what changes with any file that the page tells of."""
        folders = (self.run.path, self.run.eval_items("").parent)
        files = sorted(file for folder in folders for file in folder.glob("*.json*"))
        return sha256(repr([(str(file), _changed(file), _size(file)) for file in files]).encode()).hexdigest()[:32]

    def _rendered(self) -> str:
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
    tell: Callable[[str], None],
    audited: Audit = lambda record: record,
    *,
    grace_s: float = GRACE_S,
) -> None:
    """Serves a run's page until the run has ended; `tell` gets the address. A run that has ended is not served.

    Raises `RunDirError` where there is no directory, `SetupError` where the port is taken.
    """
    if not path.is_dir():
        raise RunDirError(f"{path} is no directory.", hint="`train` prints where a run is.")
    follower = Follower(path, audited)
    if follower.has_ended:
        return
    server = _server(follower, port)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        tell(f"http://{LOOPBACK}:{server.server_address[1]}/")
        while not follower.has_ended:
            time.sleep(LOOK_EVERY_S)
        time.sleep(grace_s)
    finally:
        server.shutdown()
        server.server_close()


def _server(follower: Follower, port: int | None) -> "LiveServer":
    reason = ""
    for number in [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS_TRIED), 0]:
        try:
            return LiveServer(follower, number)
        except OSError as error:
            reason = error.strerror or str(error)
    raise SetupError(f"Port {port} cannot be used: {reason}.", hint="Give another with --port, or leave it out.")


class LiveServer(ThreadingHTTPServer):
    """Listens on loopback; asks for no host's name, and is silent about readers who left."""

    server_bind = TCPServer.server_bind

    def __init__(self, follower: Follower, port: int) -> None:
        super().__init__((LOOPBACK, port), PageHandler)
        self.follower = follower
        self.names = {f"{host}:{self.server_address[1]}" for host in (LOOPBACK, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class PageHandler(BaseHTTPRequestHandler):
    """Answers with the page, and with nothing else."""

    server: LiveServer
    timeout = MOST_WAITING_S
    server_version, sys_version = "lowmem-rl", ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.names:
            # A name was bent to this machine (DNS rebinding): another page's script is asking.
            self._send(421, b"This server answers to its own address alone.\n", TEXT)
        elif self.path != "/":
            self._send(404, b"Only / is here.\n", TEXT)
        else:
            self._send_page(self.server.follower.page())

    def _send_page(self, answer: PageState) -> None:
        about = {"ETag": answer.tag, "X-Run-Ended": "yes" if answer.is_last else "no"}
        if self.headers.get("If-None-Match") == answer.tag:
            self._send(304, b"", {}, **about)
        else:
            self._send(200, answer.body, HTML, **about)

    def _send(self, status: int, body: bytes, kind: Mapping[str, str], **headers: str) -> None:
        self.send_response(status)
        policies = {"Content-Security-Policy": f"{policy(followed=True)}; frame-ancestors 'none'"}
        sized = {"Content-Length": str(len(body))} if kind else {}
        for name, value in (FIXED | policies | dict(kind) | sized | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal belongs to the address."""


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
