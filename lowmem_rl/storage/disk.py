"""Writes that survive: whole files and folders or none of them, whole lines, and patience with a full disk.

What a killed process leaves is the old file, or the new one, or beside either a name that begins with a dot; of a
file of lines, perhaps half of the last one.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Written = TypeVar("Written")

RETRY_S = 2.0
"""Between two attempts to write on a full disk."""
FULL = (errno.ENOSPC, errno.EDQUOT)
NOTHING_LEFT_BYTES = 64 * 1024
"""Less free than this behind a failed write is why it failed."""


@dataclass(frozen=True, slots=True)
class DiskFullRetry:
    """How a full disk is waited for."""

    tell: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    """May raise, where the run is to stop: then the wait is over."""


_patience: ContextVar[DiskFullRetry | None] = ContextVar("patience", default=None)


@contextlib.contextmanager
def retry_when_disk_full(patience: DiskFullRetry | None) -> Iterator[None]:
    """Lets writes in this context wait for room on a full disk, as long as it takes; with None they fail at once."""
    token = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(token)


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file: aside first, then renamed over the old one."""

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    _patiently(path, write)


def append(path: Path, content: bytes) -> None:
    """Appends all of `content` or, where that fails, nothing."""

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
            except BaseException:
                file.truncate(size)
                raise

    _patiently(path, write)


def write_dir_atomic(path: Path, fill: Callable[[Path], None]) -> None:
    """Writes a whole folder: `fill` makes it aside, its files are flushed to the disk, and it takes its place."""
    aside = tmp_dir_for(path)

    def write() -> None:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            fill(aside)
            for file in (*aside.rglob("*"), aside):
                fsync(file)
            _put(aside, path)
        except Exception as error:
            if is_full(error, aside):  # asked while what filled it is still there
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    _patiently(path, write)


def tmp_dir_for(path: Path) -> Path:
    """Returns the folder in which another is made."""
    return path.with_name(f".{path.name}.aside")


def remove_stale_tmp(folder: Path) -> None:
    """Removes what a killed process left of folders it was writing in `folder`; none is lost that was whole."""
    for aside in folder.glob(".*.aside"):
        shutil.rmtree(aside, ignore_errors=True)
    for old in folder.glob(".*.old"):
        path = folder / old.name.removeprefix(".").removesuffix(".old")
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of `_put`
            old.rename(path)


def fsync(path: Path) -> None:
    """Has the disk hold a file or folder for good: what is only in the system's memory is lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: Exception, path: Path) -> bool:
    """Says whether a write failed for want of room.

    Libraries that write by themselves say it in their own words: safetensors the system's, torch only that the file
    is shorter than it should be.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if any(os.strerror(number) in str(error) for number in FULL):
        return True
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path).free < NOTHING_LEFT_BYTES
    return False


def _put(aside: Path, path: Path) -> None:
    """Renames `aside` to `path`; an older folder of that name goes once the new one stands there."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if path.exists():
            path.rename(old)
        aside.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _patiently(path: Path, write: Callable[[], Written]) -> Written:
    """Returns what `write` returns; where it fails it leaves nothing behind, so that it can be tried again."""
    began = None
    while True:
        try:
            written = write()
        except OSError as error:
            patience = _patience.get()
            if patience is None or error.errno not in FULL:
                raise
            if began is None:
                began = time.monotonic()
                patience.tell(f"no room on the disk for {path}: the run waits until there is some, and loses nothing")
            patience.sleep(RETRY_S)
        else:
            if began is not None and (patience := _patience.get()):
                patience.tell(f"there is room again after {time.monotonic() - began:.0f} s: the run goes on")
            return written
