"""Work in a process of its own, without Unsloth: an order goes in as JSON, the answer comes out in a file."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.errors import LowMemError
from lowmem_rl.storage.run_dir import read_json


class JobFailed(LowMemError):
    """The work did not end well; the message is the last line of what it said."""


def run_in_subprocess(work: str, order: Mapping[str, Any], log: Path) -> Any:
    """Returns the answer of `lowmem_rl.export.<work>`; what libraries say goes to `log`. Raises `JobFailed`."""
    with tempfile.TemporaryDirectory() as folder, log.open("a+", encoding="utf-8", errors="replace") as talk:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-m", f"lowmem_rl.export.{work}", str(answer)]
        done = subprocess.run(
            command, input=json.dumps(order), stdout=talk, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode or not answer.exists():
            raise JobFailed(_last_line(log) or f"the process ended with {done.returncode}")
        return read_json(answer)


def serve(work: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Does the work that standard input orders, and writes the answer to the file that the command line names."""
    answer = work(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(answer), "utf-8")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
