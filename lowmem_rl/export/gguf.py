"""GGUF through llama.cpp, which is found and never downloaded: its converter writes the file, its server answers.

`convert_hf_to_gguf.py` and `llama-server` are searched on the PATH and in the folder that LLAMA_CPP names (a checkout
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl.export.model_answers import ExportPrompts

FILE = "model.gguf"
_CONVERTER, _SERVER = "convert_hf_to_gguf.py", "llama-server"
_FOLDERS = (".", "build/bin", "bin")
"""Of a checkout of llama.cpp."""
_START_TIMEOUT_S = _ANSWER_TIMEOUT_S = 600


class JobFailed(LowMemError):
    """A process that makes or loads the files did not end well; the message is the reason."""


class LlamaCpp(NamedTuple):
    """The two programs of llama.cpp that are used."""

    converter: Path
    server: Path


def find_llama_cpp() -> LlamaCpp:
    """Returns the paths of llama.cpp. Raises `SetupError` if one of the two programs is missing."""
    converter, server = _find(_CONVERTER), _find(_SERVER)
    if converter and server:
        return LlamaCpp(converter, server)
    missing = [name for name, path in ((_CONVERTER, converter), (_SERVER, server)) if path is None]
    raise SetupError(
        f"gguf needs llama.cpp, and {' and '.join(missing)} cannot be found.",
        hint="Build llama.cpp and set LLAMA_CPP to its folder; or use --to merged, which llama.cpp converts.",
    )


def convert(found: LlamaCpp, merged: Path, file: Path, log: Path) -> None:
    """Writes a merged model's folder as one file in its 16-bit format. Raises `JobFailed`."""
    command = [sys.executable, str(found.converter), str(merged), "--outfile", str(file), "--outtype", "auto"]
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode or not file.is_file():
        raise JobFailed(f"{_CONVERTER} ended with {done.returncode}", hint=f"Its output is in {log}.")


def answer_with_gguf(found: LlamaCpp, file: Path, asked: ExportPrompts, log: Path) -> list[str]:
    """Returns the file's greedy answers to the prompts, a text each. Raises `JobFailed`."""
    context = max(map(len, asked.prompts)) + asked.max_tokens
    options = {"n_predict": asked.max_tokens, "temperature": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}
    with _serving(found, file, context, log) as address:
        try:
            return [str(_get(f"{address}/completion", {"prompt": p} | options)["content"]) for p in asked.prompts]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise JobFailed(f"{_SERVER} does not answer: {error}") from error


@contextlib.contextmanager
def _serving(found: LlamaCpp, file: Path, context: int, log: Path) -> Iterator[str]:
    """Yields the address of a server on loopback, and ends it. Raises `JobFailed` if it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + _START_TIMEOUT_S
    options = ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(context), "--parallel", "1"]
    with log.open("a", encoding="utf-8") as output:
        command = [str(found.server), "-m", str(file), *options]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while server.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError):  # not there yet, or still loading
                    _get(f"{address}/health")
                    break
                time.sleep(0.2)
            else:
                raise JobFailed(f"{_SERVER} does not serve the file", hint=f"Its output is in {log}.")
            yield address
        finally:
            server.terminate()
            server.wait()


def _get(address: str, content: Any = None) -> Any:
    data = content and json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
        return json.load(response)


def _find(name: str) -> Path | None:
    folder, on_path = os.environ.get("LLAMA_CPP"), shutil.which(name)
    paths = [Path(folder, place, name) for place in _FOLDERS] if folder else []
    return next((path for path in paths if path.is_file()), Path(on_path) if on_path else None)
