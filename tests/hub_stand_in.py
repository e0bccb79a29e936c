"""A stand-in for the hub on this machine: the part of its API that pushing a folder uses, with one valid token."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_the_one_that_is_valid"


class StandIn(ThreadingHTTPServer):
    """Repositories by name, each with `private` and its `files`."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """What a process needs to take it for the hub; large files go through LFS, as without hf_xet."""
        named = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return named | ({} if token is None else {"HF_TOKEN": token})


@contextmanager
def running() -> Iterator[StandIn]:
    """Yields the server while it answers."""
    with StandIn() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        repo = self.path.removeprefix("/api/models/").removesuffix("/revision/main").partition("?")[0]
        if not self._is_let_in():
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/whoami-v2":
            self._answer(200, {"type": "user", "name": "me", "orgs": []})
        elif repo in self.server.repos:
            self._answer(200, {"id": repo, "private": self.server.repos[repo]["private"], "sha": "a" * 40})
        else:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {self.path}")
        if not self._is_let_in():
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repos.setdefault(name, {"private": asked.get("visibility") == "private", "files": {}})
            self._answer(200, {"url": f"{self.server.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":  # the front matter of a card
            self._answer(200, {"errors": [], "warnings": []})
        elif self.path.endswith("/objects/batch"):
            self._answer(200, self._batch(json.loads(body)))
        elif "/preupload/" in self.path:
            files = [_mode(file["path"]) for file in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        else:
            self._commit(body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, {})

    def _is_let_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        actions = [
            one | {"actions": {"upload": {"href": f"{self.server.address}/blob/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        return {"transfer": "basic", "objects": actions}

    def _commit(self, body: bytes) -> None:
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        files = self.server.repos[repo]["files"]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = line["value"]["content"]
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.server.blobs[line["value"]["oid"]]
        self._answer(200, {"commitUrl": f"{self.server.address}/{repo}/commit/{'a' * 40}", "commitOid": "a" * 40})

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Leaves pytest's output alone."""


def _mode(path: str) -> dict[str, Any]:
    return {"path": path, "uploadMode": "lfs" if path.endswith(".safetensors") else "regular", "shouldIgnore": False}
