"""The hub is a server in this process: what is asked of it, and what is made of its answers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import close_session, constants

from lowmem_rl.errors import ConfigError, LowMemError, SetupError
from lowmem_rl.models.hub import fetch_config, refusal, why_no_hub
from lowmem_rl.models.lookup import check_fetched, load_shape

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 320,
}
FILE = {"X-Repo-Commit": "a" * 40, "ETag": '"abc"'}
OTHER = {"X-Repo-Commit": "b" * 40, "ETag": '"def"'}
THREE_LAYERS = json.dumps(CONFIG | {"num_hidden_layers": 3}).encode()
ANSWERS = {
    "/org/model/resolve/main/config.json": (200, json.dumps(CONFIG).encode(), FILE),
    "/org/model/resolve/refs%2Fpr%2F1/config.json": (
        200,
        THREE_LAYERS,
        OTHER,
    ),
    "/org/moved/resolve/main/config.json": (307, b"", {"Location": "/org/model/resolve/main/config.json"}),
    "/org/gated/resolve/main/config.json": (403, b"", {"X-Error-Code": "GatedRepo"}),
    "/org/none/resolve/main/config.json": (401, b"", {"X-Error-Code": "RepoNotFound"}),
    "/org/model/resolve/v9/config.json": (404, b"", {"X-Error-Code": "RevisionNotFound"}),
    "/org/gguf/resolve/main/config.json": (404, b"", {"X-Error-Code": "EntryNotFound"} | FILE),
    "/org/huge/resolve/main/config.json": (200, b" " * 1_000_001, FILE),
    "/org/list/resolve/main/config.json": (200, b"[]", FILE),
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
        if self.path in ANSWERS:
            self.server.asked.append((self.path, self.headers["Authorization"]))
        code, body, headers = ANSWERS.get(self.path, (404, b"", {}))
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[str, str | None]]]:
    """Starts a hub; what was asked of it, with the token. The client reads its variables when it is imported."""
    server = Server()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub = f"http://localhost:{server.server_port}"
    for name, value in (
        ("ENDPOINT", hub),
        ("HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_CACHE", str(tmp_path / "hub")),
        ("HF_TOKEN_PATH", str(tmp_path / "token")),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server.asked
    close_session()
    server.shutdown()
    server.server_close()


def test_an_unknown_hub_model_is_shaped_by_the_hub_s_config(asked) -> None:
    shape = load_shape("org/model")
    assert (shape.num_layers, shape.key) == (2, "org/model")
    assert load_shape("org/model", revision="refs/pr/1").num_layers == 3
    assert load_shape("org/moved").num_layers == 2
    asked.clear()
    assert load_shape("org/model").num_layers == 2  # from the cache
    assert asked == []


@pytest.mark.parametrize("stored", ["variable", "hf auth login"])
def test_the_token_is_the_one_that_the_hub_s_client_has(asked, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if stored == "variable":
        monkeypatch.setenv("HF_TOKEN", "secret\n")
    else:
        Path(constants.HF_TOKEN_PATH).write_text("secret\n")
    fetch_config("org/model")
    assert {token for _, token in asked} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/none", r"does not show org/none \(401, RepositoryNotFoundError\)"),
        ("org/gguf", r"does not show org/gguf \(404, RemoteEntryNotFoundError\)"),
        ("org/html", "does not answer .*X-Repo-Commit"),
    ],
)
def test_what_the_hub_does_not_show_stays_unknown(asked, name: str, said: str) -> None:
    with pytest.raises(SetupError, match=said) as refused:
        load_shape(name)
    assert "hf " in refused.value.hint
    assert len(asked) == 1


def test_a_hub_that_does_not_answer_is_asked_once(asked, monkeypatch, capfd) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    began = time.monotonic()
    with pytest.raises(SetupError, match="http://127.0.0.1:9 does not answer"):
        load_shape("org/model")
    assert time.monotonic() - began < 10  # with the client's own attempts it takes 23 s
    assert capfd.readouterr() == ("", "")


def test_a_missing_revision_is_named(asked) -> None:
    with pytest.raises(SetupError, match="RevisionNotFoundError") as refused:
        load_shape("org/model", revision="v9")
    assert "revision" in refused.value.hint


@pytest.mark.parametrize("name", ["org/huge", "org/list"])
def test_what_is_no_config_is_refused(asked, name: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_shape(name)


@pytest.mark.parametrize("look", [load_shape, check_fetched])
def test_a_gated_model_says_how_to_log_in(asked, look: Callable[[str], object]) -> None:
    with pytest.raises(SetupError, match="org/gated is gated on the hub, and no token is stored here") as refused:
        look("org/gated")
    assert refused.value.hint.startswith("Accept its licence")
    assert "hf auth login" in refused.value.hint
    Path(constants.HF_TOKEN_PATH).write_text("secret")
    with pytest.raises(SetupError, match="the token here has no access to it"):
        look("org/gated")


def test_a_refusal_is_found_under_a_library_s_own_error(asked) -> None:
    with pytest.raises(SetupError) as refused:
        fetch_config("org/gated")
    wrapped = OSError("You are trying to access a gated repo.")
    wrapped.__cause__ = refused.value.__cause__
    found = refusal("org/gated", wrapped)
    assert found is not None
    assert "gated" in str(found)
    assert refusal("org/gated", OSError("disk")) is None


def test_a_hub_that_does_not_answer_is_named(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_hub() is None
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name).replace("localhost", "hub.invalid"))
    assert "hub.invalid" in str(why_no_hub())
    with pytest.raises(SetupError, match="hub.invalid:[0-9]* does not answer"):
        check_fetched("org/model")


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
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for look in (load_shape, check_fetched):
        with pytest.raises(SetupError):
            look("org/model")
    assert asked == []


HOME = {"HOME": "/people/me", "SPACE": "/big"}


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, "/people/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "$SPACE/hf"}, "/big/hf/hub"),
        ({"HF_HOME": "~/hf"}, "/people/me/hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "${SPACE}/new"}, "/big/new"),
        ({"HF_HUB_CACHE": "~/new", "HF_HOME": "/hf"}, "/people/me/new"),
    ],
)
def test_the_cache_is_where_the_hub_s_own_variables_say(variables: dict[str, str], cache: str) -> None:
    assert in_new_process("hub.hub_cache()", HOME | variables) == cache


@pytest.mark.parametrize(
    ("variables", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "yes"}, True),
        ({"TRANSFORMERS_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
    ],
)
def test_it_is_offline_when_the_hub_s_own_variables_say_so(variables: dict[str, str], offline: bool) -> None:
    assert in_new_process("hub.is_offline()", HOME | variables) == str(offline)


def in_new_process(expression: str, variables: dict[str, str]) -> str:
    """Returns what an expression is in a process with these variables; the client reads them once."""
    program = f"from lowmem_rl.models import hub; print({expression})"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | variables
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()
