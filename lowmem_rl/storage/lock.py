"""One process at a time in a run directory.

The kernel holds the lock for the process and releases it however that ends, also by SIGKILL; the file stays. It holds
across machines if the file system carries `flock` to its server (NFS does, flock(2)); if a file system has no locks,
the caller gets a message.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from lowmem_rl.errors import RunDirError

_LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""A lock file is emptied: a directory from elsewhere must not have another file of this machine emptied."""
_LONGEST_OWNER = 200
"""Bytes that are read of the owner's process and machine."""
_held: dict[Path, int] = {}
"""The descriptor of each lock that this process holds."""


@contextlib.contextmanager
def locked(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock `path`. Raises `RunDirError` if another process has it, or it cannot be made."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
    except OSError as error:
        raise RunDirError(
            f"{path.parent} cannot be written: {error.strerror}.", hint="Make it writable, or give another with --out."
        ) from error
    try:
        _lock(descriptor, path, report)
        _held[path] = descriptor
        yield
    finally:
        _held.pop(path, None)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Returns whether a process holds the lock `path` now; False if the file system has no locks."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDWR | _NO_LINK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


def check_in_place(path: Path) -> None:
    """Raises `RunDirError` if `path` is in a directory that was moved or deleted since it was locked here.

    Else what is written would make a new directory, next to the moved one or in place of the deleted one.
    """
    for lock, descriptor in _held.items():
        if path.is_relative_to(lock.parent) and not _is_open_as(lock, descriptor):
            place = _place_of(descriptor)
            rest = f" The rest is in {place}: lowmem-rl train --resume --out {place}" if place else ""
            hint = f"What a training has learned is saved in {lock.parent / 'adapter'}.{rest}"
            raise RunDirError(f"{lock.parent} was moved or deleted while this command wrote into it.", hint=hint)


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _place_of(descriptor: int) -> Path | None:
    """Returns the folder of an open file, which may have been moved, where the system knows it: on Linux."""
    with contextlib.suppress(OSError):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return path.parent if _is_open_as(path, descriptor) else None
    return None


def share_lock(descriptor: int) -> None:
    """Locks an open file until this process and all that inherit the descriptor have closed it, if that can be done."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time read and rewrite a file in `folder`; others wait, for a moment.

    It needs no file, for which there may be no space. If the file system has no locks, nobody waits.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, report: Callable[[str], None]) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, _LONGEST_OWNER, 0).decode("utf-8", "replace").strip() or "another process"
        raise RunDirError(
            f"{path.parent} is in use by {owner}.", hint="Wait until it has ended, or stop it; it saves first."
        ) from error
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _LOCKLESS:
            raise
        report(f"{path.parent} cannot be locked here: make sure that no second process uses it")
        return
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
