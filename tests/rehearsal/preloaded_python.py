"""Python with the stack loaded already, for commands and workers that tests start on this machine's CPU.

    with preloaded_python() as python:
        subprocess.run([python, "-m", "lowmem_rl", "train", ...])

Most of a tiny training's time is the import of its libraries, and so is most of an export's proof.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from tests.rehearsal.ask import PYTHON
from tests.rehearsal.server import CPU, PLAIN
from tests.rehearsal.stage import ROOT, Stage

LAUNCHER = """#!/bin/sh
export {variable}="$0"
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
safe=
if [ "$1" = -P ]; then safe=-P; shift; fi
case "$HF_ENDPOINT $1 $2" in
    *" -m lowmem_rl.export.plain_worker") shift; exec {python} -m tests.rehearsal.ask {plain} "$@" ;;
    " -m lowmem_rl" | " -m lowmem_rl_cli") shift; exec {python} -m tests.rehearsal.ask {stack} "$@" ;;
    *) exec {python} $safe "$@" ;;
esac
"""


@contextlib.contextmanager
def preloaded_python() -> Iterator[Path]:
    """Yields a script that takes Python's place, next to a `lowmem-rl`.

    What it does not know runs in a new Python, and so do commands with another hub and their workers: the hub's client
    reads HF_ENDPOINT when it is imported. Raises `RehearsalError` if a server does not come up.
    """
    stack, plain = (Stage(key, has_own_caches=False) for key in (CPU, PLAIN))
    with contextlib.closing(stack), contextlib.closing(plain), tempfile.TemporaryDirectory() as folder:
        stack.start()
        plain.start()
        stack.wait_until_ready()
        plain.wait_until_ready()
        python, command = Path(folder) / "python", Path(folder) / "lowmem-rl"
        places = {"stack": stack.address, "plain": plain.address, "root": ROOT, "python": sys.executable}
        python.write_text(LAUNCHER.format(variable=PYTHON, **{key: quote(str(path)) for key, path in places.items()}))
        command.write_text(f'#!/bin/sh\nexec {quote(str(python))} -m lowmem_rl "$@"\n')
        for script in (python, command):
            script.chmod(0o755)
        yield python
