"""Checks before the first minutes begin. Only the standard library: the first check is for packages."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pydantic", "pynvml", "typer", "rich", "torch", "unsloth", "trl", "peft", "bitsandbytes", "transformers")
USAGE, NOT_READY = 2, 3
GIB = 2**30


class Unready(Exception):
    """Nothing can be measured. The message says what is missing and, on a second line, what to do."""

    def __init__(self, problem: str, fix: str, code: int = NOT_READY) -> None:
        super().__init__(f"{problem}\n{fix}")
        self.code = code


def check_packages() -> None:
    """Raises `Unready` if this Python lacks a package."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        fix = "Run `make demo` once, then start this script with .venv/bin/python."
        raise Unready(f"{sys.executable} has no {', '.join(missing)}.", fix)


def check_card(name: str | None) -> None:
    """Raises `Unready` if there is no card, or if torch cannot use it. `name` comes from the driver."""
    fix = "`lowmem-rl doctor` shows what is missing."
    if name is None:
        raise Unready("This machine shows no card.", fix)
    import torch

    if not torch.cuda.is_available():
        raise Unready(f"torch {torch.__version__} cannot use this machine's {name}.", fix)


def scratch(folder: Path | None) -> Path | None:
    """Creates the folder and returns it. Raises `Unready` if it cannot be created."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unready(f"--scratch {folder}: {error.strerror}.", "Choose another folder.") from error
    return folder


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Raises `Unready` if the folder's disk has less free space."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        problem = (
            f"The weights take {needed_bytes / GIB:.1f} GiB of disk, {free / GIB:.1f} are free in {folder.parent}."
        )
        raise Unready(problem, "Choose a folder on a larger disk (--scratch FOLDER), or fewer parts (--only PART ...).")
