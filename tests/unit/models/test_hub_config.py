"""The hub is a server in this process: what is asked of it, and what is made of its answers."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl.models.hub_config import LARGEST_BYTES, fetch_config
from lowmem_rl.models.lookup import load_shape

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 320,
}
ANSWERS = {
    "/org/model/resolve/main/config.json": (200, json.dumps(CONFIG).encode(), {}),
    "/org/model/resolve/refs%2Fpr%2F1/config.json": (200, json.dumps(CONFIG | {"num_hidden_layers": 3}).encode(), {}),
    "/org/moved/resolve/main/config.json": (307, b"", {"Location": "/org/model/resolve/main/config.json"}),
    "/org/gated/resolve/main/config.json": (403, b"", {"X-Error-Code": "GatedRepo"}),
    "/org/huge/resolve/main/config.json": (200, b" " * (LARGEST_BYTES + 1), {}),
    "/org/list/resolve/main/config.json": (200, b"[]", {}),
    "/org/html/resolve/main/config.json": (200, b"<html>", {}),
}


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the answers under way, and for their sockets

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[tuple[str, str | None]] = []


class Hub(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        code, body, headers = ANSWERS.get(self.path, (404, b"", {}))
        if self.path.startswith("/org/elsewhere/"):
            same_server = f"http://127.0.0.1:{self.server.server_port}/org/model/resolve/main/config.json"
            code, headers = 302, {"Location": same_server}
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None]]]:
    """Starts a hub; what was asked of it, with the token."""
    server = Server()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://localhost:{server.server_port}/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield server.asked
    server.shutdown()
    server.server_close()


def test_an_unknown_hub_model_is_shaped_by_the_hub_s_config(asked) -> None:
    shape = load_shape("org/model")
    assert (shape.num_layers, shape.key) == (2, "org/model")
    assert shape.source.endswith("/org/model/resolve/main/config.json")
    assert load_shape("org/model", revision="refs/pr/1").num_layers == 3
    assert load_shape("org/moved").num_layers == 2


def test_the_token_goes_to_the_hub_and_nowhere_else(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret\n")
    assert fetch_config("org/moved") == CONFIG
    assert [token for _, token in asked] == ["Bearer secret"] * 2
    asked.clear()
    assert fetch_config("org/elsewhere") is None  # the hub is called localhost here
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["org/none", "org/huge", "org/list", "org/html"])
def test_what_the_hub_does_not_show_stays_unknown(asked, name: str) -> None:
    with pytest.raises(SetupError, match="is not known"):
        load_shape(name)
    assert len(asked) == 1


def test_a_gated_model_says_so(asked) -> None:
    with pytest.raises(SetupError, match="a gated model") as refused:
        load_shape("org/gated")
    assert "HF_TOKEN" in refused.value.hint


def test_a_known_model_is_never_asked_for(asked) -> None:
    assert load_shape("Qwen/Qwen2.5-7B").num_layers == 28
    assert load_shape("tiny").key == "tiny"
    assert asked == []


@pytest.mark.parametrize("name", ["./org/model", "/org/model", "org/model/x", "org/m?x", "../model", "org/m\n"])
def test_a_path_and_what_no_model_can_be_called_are_never_asked_for(asked, name: str) -> None:
    with pytest.raises(LowMemError):
        load_shape(name)
    assert asked == []


def test_offline_nothing_is_asked(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError):
        load_shape("org/model")
    assert asked == []
