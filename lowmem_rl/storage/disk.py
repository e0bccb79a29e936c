"""Atomic writes: a file or directory is replaced whole or not at all, rows are appended whole, a full disk is retried.

A killed process leaves the old file or the new one, perhaps with a temporary one whose name begins with a dot; in a
file of rows, perhaps half of the last one. A file of a locked directory that is gone raises `RunDirError`.
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

from lowmem_rl.storage.lock import check_in_place

_RETRY_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTHING_LEFT_BYTES = 64 * 1024
"""A write that fails with less than this free failed because the disk is full."""


@dataclass(frozen=True, slots=True)
class DiskFullRetry:
    """Waits for free space when a disk is full."""

    report: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    """May raise if the run is to stop: then the wait is over."""


_retry: ContextVar[DiskFullRetry | None] = ContextVar("retry", default=None)


@contextlib.contextmanager
def retry_when_disk_full(retry: DiskFullRetry | None) -> Iterator[None]:
    """Lets writes in this context wait for space on a full disk, without a limit; with None they fail at once."""
    token = _retry.set(retry)
    try:
        yield
    finally:
        _retry.reset(token)


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file: to a temporary one first, which then replaces the old one."""

    def write() -> None:
        check_in_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    _retrying(path, write)


def append(path: Path, content: bytes) -> None:
    """Appends all of `content` or, if that fails, nothing."""

    def write() -> None:
        check_in_place(path)
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

    _retrying(path, write)


def write_dir_atomic(path: Path, fill: Callable[[Path], None]) -> None:
    """Writes a whole directory: `fill` makes a temporary one, which is flushed to the disk and replaces the old one."""
    temporary = tmp_dir_for(path)

    def write() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            fill(temporary)
            for file in (*temporary.rglob("*"), temporary):
                fsync(file)
            _replace(temporary, path)
        except Exception as error:
            if is_full(error, temporary):  # asked while what filled it still exists
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    _retrying(path, write)


def tmp_dir_for(path: Path) -> Path:
    """Returns the temporary directory of `write_dir_atomic`."""
    return path.with_name(f".{path.name}.aside")


def remove_stale_tmp(folder: Path) -> None:
    """Removes what a killed process left of directories it was writing in `folder`; a whole one is never lost."""
    for temporary in folder.glob(".*.aside"):
        shutil.rmtree(temporary, ignore_errors=True)
    for old in folder.glob(".*.old"):
        path = folder / old.name.removeprefix(".").removesuffix(".old")
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of `_replace`
            old.rename(path)


def fsync(path: Path) -> None:
    """Flushes a file or directory to the disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: Exception, path: Path) -> bool:
    """Returns whether a write failed because the disk is full.

    Libraries that write by themselves raise errors of their own: safetensors with the system's message, torch only
    that the file is shorter than it should be.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    if any(os.strerror(number) in str(error) for number in _FULL):
        return True
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path).free < _NOTHING_LEFT_BYTES
    return False


def _replace(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; an older directory of that name is removed when the new one is in its place."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _retrying(path: Path, write: Callable[[], None]) -> None:
    """Calls `write`, which leaves nothing if it fails, again while the disk is full."""
    began = None
    while True:
        retry = _retry.get()
        try:
            write()
            break
        except OSError as error:
            if retry is None or error.errno not in _FULL:
                raise
        if began is None:
            began = time.monotonic()
            retry.report(f"no space on the disk for {path}: the run waits until there is some, and loses nothing")
        retry.sleep(_RETRY_S)
    if began is not None and retry:
        retry.report(f"there is space again after {time.monotonic() - began:.0f} s: the run continues")
