"""The folders under checkpoints/: written to a temporary name, checksummed, flushed and renamed; read only if whole.

Here a checkpoint is files, and a manifest that seals them; `trainer_state` says what they hold.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.disk import fsync, write_dir_atomic
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json

FORMAT = 1
"""Rises when what a checkpoint holds changes its meaning."""
MANIFEST, COUNTS = "checkpoint.json", "counts.json"
NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole: everything that a run needs to resume after `step`."""

    path: Path
    step: int

    def read_counts(self) -> dict[str, Any]:
        """Returns the hooks' own state, as `TrainerSnapshot.counts`."""
        return dict(read_json(self.path / COUNTS))


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written, and why."""


def write_checkpoint(run_dir: RunDir, step: int, fill: Callable[[Path], None], keep: int) -> None:
    """Writes the checkpoint of `step`, whose files `fill` makes in a folder, then removes all but the last `keep`."""

    def fill_and_seal(folder: Path) -> None:
        fill(folder)
        write_json(folder / MANIFEST, _manifest(folder, step))

    tables = (run_dir.metrics, run_dir.samples, run_dir.order, run_dir.rollbacks, run_dir.trainable)
    for rows in (*tables, run_dir.evaluations):
        if rows.exists():  # a checkpoint must not outlast the rows that lead to it
            fsync(rows)
    write_dir_atomic(run_dir.checkpoint(step), fill_and_seal)
    for old in [known for known, _ in _folders(run_dir) if known <= step][keep:]:
        shutil.rmtree(run_dir.checkpoint(old), ignore_errors=True)


def newest(run_dir: RunDir, report: Callable[[str], None], before: float = inf) -> Checkpoint | None:
    """Returns the newest whole checkpoint before a step, None if there is none; reports each that is damaged.

    Raises `RunDirError` if another version wrote the newest, or if all of them are damaged.
    """
    damaged = 0
    for step, path in ((step, path) for step, path in _folders(run_dir) if step < before):
        try:
            _check(path, step)
        except DamagedCheckpoint as why:
            damaged += 1
            report(f"{path} is damaged and passed over: {why}")
        else:
            return Checkpoint(path, step)
    if damaged:
        raise RunDirError(
            f"None of the {damaged} checkpoints in {run_dir.checkpoints} is whole.",
            hint=f"To begin the run again, remove that folder and repeat the command: rm -r {run_dir.checkpoints}",
        )
    return None


def remove_after(run_dir: RunDir, step: int) -> None:
    """Removes the checkpoints of later steps."""
    for known, path in _folders(run_dir):
        if known > step:
            shutil.rmtree(path)


def _folders(run_dir: RunDir) -> list[tuple[int, Path]]:
    """Returns step and folder of all checkpoints, the latest first."""
    if not run_dir.checkpoints.is_dir():
        return []
    named = ((NAME.fullmatch(path.name), path) for path in run_dir.checkpoints.iterdir() if path.is_dir())
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    files = {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in _files(folder)}
    content = {"format": FORMAT, "written_by": f"lowmem-rl {__version__}", "step": step, "files": files}
    return content | {"seal": _seal(content)}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(content: dict[str, Any]) -> str:
    """Returns the manifest's own checksum: a flipped bit in it is damage, not another version."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check(path: Path, step: int) -> None:
    """Raises `DamagedCheckpoint`, or `RunDirError` for a format that this version does not read."""
    try:
        _compare(path, step, _read_manifest(path))
    except OSError as error:
        raise DamagedCheckpoint(f"{Path(error.filename or path).name} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read") from error


def _compare(path: Path, step: int, manifest: dict[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise RunDirError(
            f"{path} was written by {manifest['written_by']} in format {manifest['format']}; "
            f"this is {__version__}, which reads format {FORMAT}.",
            hint="Continue with the version that wrote it, or start the run again in another directory.",
        )
    if manifest["step"] != step:
        raise DamagedCheckpoint(f"it holds step {manifest['step']}")
    present = dict(_files(path))
    for name, wanted in manifest["files"].items():
        if name not in present:
            raise DamagedCheckpoint(f"{name} is missing")
        if (size := present[name].stat().st_size) != wanted["bytes"]:
            raise DamagedCheckpoint(f"{name} has {size} bytes instead of {wanted['bytes']}")
        if _sha256(present[name]) != wanted["sha256"]:
            raise DamagedCheckpoint(f"{name} has changed since it was written")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).exists():
        raise DamagedCheckpoint(f"{MANIFEST} is missing")
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    if manifest.pop("seal") != _seal(manifest):
        raise DamagedCheckpoint(f"{MANIFEST} has changed since it was written")
    return manifest
