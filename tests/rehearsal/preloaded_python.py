"""Python with the stack loaded already, for commands and workers that tests start on this machine's CPU.

    with preloaded_python() as python:
        subprocess.run([python, "-m", "lowmem_rl", "train", ...])

Most of a tiny training's time is the import of its libraries, and so is most of an export's proof. All workers of
pytest-xdist share the processes that are forked from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from tests.rehearsal.ask import PYTHON
from tests.rehearsal.server import CPU, MATH, PLAIN
from tests.rehearsal.stage import ROOT, Stage, end_server

OWNER, FOLDER = "REHEARSAL_OWNER", "REHEARSAL_SERVERS"
"""Environment variables of a test run: the process that the servers end with, and their folder."""
WITHOUT_UNSLOTH = (
    "lowmem_rl.export.plain_worker",
    "accelerate.commands.accelerate_cli",
    "tests.contracts.*",
    "tests.train.scaled_gradients",
)
WITH_UNSLOTH = (
    "lowmem_rl",
    "lowmem_rl_cli",
    "lowmem_rl_bench.step.arm_worker",
    "submitit.core._submit",
    "tests.train.short_of_memory",
)
"""Modules that are forked, as patterns of the shell."""
FORK_SERVER, XFORMERS = "from multiprocessing.forkserver import main", "from xformers._cpp_lib import"
"""First words of the programs of `python -c` that are forked, the first with Unsloth. All else runs in a new Python."""

LAUNCHER = """#!/bin/sh
export {variable}="$0"
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
flags=
while [ "$1" = -P ] || [ "$1" = -u ]; do flags="$flags $1"; shift; done
if [ "$1" = -m ]; then
    case "$2" in
        {without_unsloth}) shift; exec {python} -m tests.rehearsal.ask {plain} "$@" ;;
        {with_unsloth}) shift; exec {python} -m tests.rehearsal.ask {stack} "$@" ;;
        lowmem_rl.verify.pool_worker) shift; exec {python} -m tests.rehearsal.ask {math} "$@" ;;
    esac
fi
if [ "$1" = -c ]; then
    case "$2" in
        "{fork_server}"*) shift; exec {python} -m tests.rehearsal.ask {stack} tests.rehearsal.program "$@" ;;
        "{xformers}"*) shift; exec {python} -m tests.rehearsal.ask {plain} tests.rehearsal.program "$@" ;;
    esac
fi
exec {python} $flags "$@"
"""
COMMANDS = {"lowmem-rl": "lowmem_rl", "accelerate": "accelerate.commands.accelerate_cli"}


def shared_stage(key: str) -> Stage:
    """Returns the server that all processes of a test run share."""
    folder = Path(os.environ[FOLDER]) / key
    folder.mkdir(exist_ok=True)
    return Stage(key, folder=folder, owner=int(os.environ[OWNER]))


def end_shared_servers() -> None:
    """Ends the shared servers and removes their folder."""
    for folder in Path(os.environ[FOLDER]).iterdir():
        end_server(folder)
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


@contextlib.contextmanager
def preloaded_python(*, is_plain: bool = False) -> Iterator[Path]:
    """Yields a script that takes Python's place, next to `lowmem-rl` and `accelerate`; starts its servers.

    If it is plain, no process has loaded Unsloth. A server that does not come up shows in what is started.
    """
    stages = {
        "math": shared_stage(MATH),
        "plain": shared_stage(PLAIN),
        "stack": shared_stage(PLAIN if is_plain else CPU),
    }
    for stage in stages.values():
        stage.start()
    places = {name: stage.address for name, stage in stages.items()} | {"root": str(ROOT), "python": sys.executable}
    patterns = {"without_unsloth": "|".join(WITHOUT_UNSLOTH), "with_unsloth": "|".join(WITH_UNSLOTH)}
    patterns |= {"fork_server": FORK_SERVER, "xformers": XFORMERS}
    quoted = {key: quote(path) for key, path in places.items()}
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "python"
        scripts = {python: LAUNCHER.format(variable=PYTHON, **patterns, **quoted)}
        for name, module in COMMANDS.items():
            scripts[Path(folder) / name] = f'#!/bin/sh\nexec {quote(str(python))} -m {module} "$@"\n'
        for path, text in scripts.items():
            path.write_text(text)
            path.chmod(0o755)
        yield python
