"""This program's folder among the user's caches."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def cache_dir() -> Path:
    """Returns the cache folder; if the user has no home that can be written, one that lives as long as this process.

    Source:
        https://specifications.freedesktop.org/basedir-spec: the variable, an absolute path, else ~/.cache
    """
    # Unlike pathlib's, this expanduser leaves a ~ that means nothing.
    named = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(named, "lowmem-rl")
    return folder if folder.is_absolute() and _can_be_made(folder) else _temporary_folder()


def _can_be_made(folder: Path) -> bool:
    """Returns whether the folder, or the nearest one above it that exists, can be written."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return place.is_dir() and os.access(place, os.W_OK)


@cache
def _temporary_folder() -> Path:
    """Makes a folder that only this user can read: code is loaded from it."""
    folder = Path(tempfile.mkdtemp(prefix="lowmem-rl-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def calibration_path() -> Path:
    """Returns the file of what this machine has measured (`memory.calibration`)."""
    return cache_dir() / "calibration.jsonl"
