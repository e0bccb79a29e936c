"""Runs a module on a simulated card, in this process: `python -m tests.rehearsal.on_card CARD MODULE [ARGUMENT ...]`.

    python -m tests.rehearsal.on_card a6000 lowmem_rl_cli.app train --preset tiny-cpu --steps 2

An export loads its files in processes of their own; `launcher` makes the script that starts these on the same card.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from tests.rehearsal.card.install import install

LAUNCHER = """#!/bin/sh
case "$2" in
    lowmem_rl.export.*) shift; exec {python} -m tests.rehearsal.on_card {card} "$@" ;;
    *) exec {python} "$@" ;;
esac
"""


def launcher(card: str, folder: Path) -> Path:
    """Returns a script that stands in for Python, and starts the processes of an export on the card."""
    path = folder / "python"
    path.write_text(LAUNCHER.format(python=sys.executable, card=card))
    path.chmod(0o755)
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
    main(*sys.argv[1:])
