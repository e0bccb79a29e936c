"""GGUF through llama.cpp, which is found and never fetched: its converter writes the file, its server answers from it.

Looked for are `convert_hf_to_gguf.py` and `llama-server`, on the PATH or in the folder that LLAMA_CPP names (a checkout
with its build). Without the server there would be a file and no proof of it, so both are needed.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl.export.model_answers import ExportPrompts

CONVERTER, SERVER, FILE = "convert_hf_to_gguf.py", "llama-server", "model.gguf"
FOLDERS = (".", "build/bin", "bin")
"""Where a checkout of llama.cpp has them."""
START_TIMEOUT_S = 600
ANSWER_TIMEOUT_S = 600


class JobFailed(LowMemError):
    """A process that makes or loads the files did not end well; the message is the reason."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """What is used of llama.cpp."""

    converter: Path
    server: Path


def find_llama_cpp() -> LlamaCpp:
    """Returns where llama.cpp is. Raises `SetupError`."""
    found = {name: _find(name) for name in (CONVERTER, SERVER)}
    if missing := [name for name, path in found.items() if path is None]:
        raise SetupError(
            f"gguf needs llama.cpp, and {' and '.join(missing)} cannot be found.",
            hint="Build llama.cpp and set LLAMA_CPP to its folder; or take --to merged, which llama.cpp converts.",
        )
    return LlamaCpp(*(path for path in found.values() if path is not None))


def convert(found: LlamaCpp, merged: Path, file: Path, log: Path) -> None:
    """Writes a merged model's folder as one file in its 16-bit format. Raises `JobFailed`."""
    command = [sys.executable, str(found.converter), str(merged), "--outfile", str(file), "--outtype", "auto"]
    with log.open("a", encoding="utf-8") as talk:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=talk, stderr=subprocess.STDOUT, check=False)
    if done.returncode or not file.is_file():
        raise JobFailed(f"{CONVERTER} ended with {done.returncode}", hint=f"What it said is in {log}.")


def answer_with_gguf(found: LlamaCpp, file: Path, asked: ExportPrompts, log: Path) -> list[str]:
    """Returns what the file answers to the prompts, greedily: a text each. Raises `JobFailed`."""
    places = max(map(len, asked.prompts)) + asked.max_tokens
    with _serving(found, file, places, log) as address:
        return [_answer(address, prompt, asked.max_tokens) for prompt in asked.prompts]


@contextlib.contextmanager
def _serving(found: LlamaCpp, file: Path, places: int, log: Path) -> Iterator[str]:
    """Yields the address of a server on loopback, and ends it."""
    port = _free_port()
    place = ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(places), "--parallel", "1"]
    with log.open("a", encoding="utf-8") as talk:
        server = subprocess.Popen([str(found.server), "-m", str(file), *place], stdout=talk, stderr=subprocess.STDOUT)
        try:
            _wait(server, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):  # not yet there, or still loading
            _get(f"{address}/health")
            return
        time.sleep(0.2)
    raise JobFailed(f"{SERVER} does not serve the file", hint=f"What it said is in {log}.")


def _answer(address: str, prompt: Sequence[int], max_tokens: int) -> str:
    wanted = {"prompt": list(prompt), "n_predict": max_tokens, "temperature": 0.0, "repeat_penalty": 1.0}
    try:
        answer = _get(f"{address}/completion", wanted | {"cache_prompt": False})
        return str(answer["content"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise JobFailed(f"{SERVER} does not answer: {error}") from error


def _get(address: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=ANSWER_TIMEOUT_S) as response:
        return json.load(response)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _find(name: str) -> Path | None:
    folder = os.environ.get("LLAMA_CPP")
    places = [Path(folder, place, name) for place in FOLDERS] if folder else []
    on_path = shutil.which(name)
    return next((path for path in places if path.is_file()), Path(on_path) if on_path else None)
