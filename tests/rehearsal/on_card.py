"""Runs a module on a simulated card, in this process: `python -m tests.rehearsal.on_card CARD MODULE [ARGUMENT ...]`.

    python -m tests.rehearsal.on_card a6000 lowmem_rl_cli train --preset tiny-cpu --steps 2

A command may start processes of its own; `launcher` makes the script that starts these on the same card. Workers, which
answer through a socket that they inherit, load the stack each for itself, those of an export without Unsloth; those of
the symbolic pool need none. All others are forked from the server that is up (`ask`).
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path
from shlex import quote

from tests.rehearsal.card.install import install
from tests.rehearsal.preloaded_python import FOLDER, shared_stage
from tests.rehearsal.server import MATH

LAUNCHER = """#!/bin/sh
safe=
if [ "$1" = -P ]; then safe=-P; shift; fi
case "$2" in
    lowmem_rl.export.* | lowmem_rl_bench.step.arm_worker) shift; exec {python} -m tests.rehearsal.on_card {card} "$@" ;;
    lowmem_rl.verify.pool_worker)
        if [ -S {math} ]; then shift; exec {python} -m tests.rehearsal.ask {math} "$@"; fi
        exec {python} $safe "$@" ;;
    lowmem_rl_cli | lowmem_rl_bench.* | benchmarks.gpu.*) shift; exec {python} -m tests.rehearsal.ask {server} "$@" ;;
    *) exec {python} $safe "$@" ;;
esac
"""


def launcher(card: str, folder: Path) -> Path:
    """Returns a script that takes Python's place, and starts processes on the card.

    `folder` holds the server's socket; all processes of the server share the script.
    """
    path = folder / "python"
    if not path.exists():
        new = folder / f"python-{os.getpid()}"
        math = shared_stage(MATH).address if FOLDER in os.environ else ""
        places = {"python": sys.executable, "server": str(folder / "socket"), "math": math}
        new.write_text(LAUNCHER.format(card=card, **{name: quote(place) for name, place in places.items()}))
        new.chmod(0o755)
        new.rename(path)
    return path


def main(card: str, module: str, *arguments: str) -> None:
    """Runs the module as `python -m` would."""
    from tests.rehearsal.card.install import load_stack
    from tests.rehearsal.card.libraries import patch_bitsandbytes

    install(card)
    if module.startswith("lowmem_rl.export."):
        patch_bitsandbytes()  # without Unsloth, as everywhere else
    else:
        load_stack()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as cache:  # a simulated run must not change the calibration
        os.environ.setdefault("XDG_CACHE_HOME", cache)
        main(*sys.argv[1:])
