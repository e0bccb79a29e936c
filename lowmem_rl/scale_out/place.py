"""Where the files of a run are written: a folder that is new or empty, and that its readers find."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowmem_rl.config.problems import is_hostile
from lowmem_rl.errors import RunDirError
from lowmem_rl.scale_out.cluster import TargetName

_READ_AS = {"$": "a variable", "*": "a pattern", "?": "a pattern", "[": "a pattern", "::": "a chain of archives"}
"""In a path: by OmegaConf (`${`), by fsspec under `datasets`, and by vLLM, which looks for weights with glob."""
_OTHERWISE = re.compile("|".join(map(re.escape, _READ_AS)))


def why_not_found(path: str, to: TargetName) -> str:
    """Returns why files under a path are not found there, or break what shows it; empty if there is no reason."""
    if is_hostile(path):
        return "its path has control characters or broken Unicode"
    found = _OTHERWISE.search(path) if to == "verl" else None
    return f"verl reads {found[0]} in a path as {_READ_AS[found[0]]}" if found else ""


def free_folder(path: Path, to: TargetName) -> Path:
    """Returns the whole path of a folder that is new or empty, and makes nothing. Raises `RunDirError`."""
    try:
        whole = path.resolve()
        reason = why_not_found(str(whole), to) or _why_not_free(whole)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        whole, reason = path, getattr(error, "strerror", None) or str(error)
    if reason:
        named = repr(str(path)) if is_hostile(str(path)) else path
        raise RunDirError(f"{named} cannot hold the files: {reason}.", hint="Give another with --out.")
    return whole


def _why_not_free(path: Path) -> str:
    if path.is_dir() and any(path.iterdir()):
        return "it is not empty"
    above = next(place for place in (path, *path.parents) if place.exists())
    is_writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    return "" if is_writable else f"{above} is no folder to write in"


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder whose files are at `path` at the end, or removed on an error.

    A folder that exists stays the same one: a shell may be in it, or a disk mounted on it.
    """
    is_there = path.exists()
    folder = (path if is_there else path.parent) / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True)
        yield folder
        if is_there:
            _move_all(folder, path)
        else:
            folder.replace(path)
    except OSError as error:
        raise RunDirError(f"{path} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_all(folder: Path, path: Path) -> None:
    """Moves what is in a folder into another; the program that starts the run comes last."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == "run.sh"):
        file.rename(path / file.name)
