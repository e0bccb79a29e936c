"""One process at a time on a run directory.

The kernel holds the lock for the process and lets go of it however that ends, by SIGKILL too; the file stays. Across
machines it holds where the file system carries `flock` to its server (NFS does, flock(2)); where it knows none, the
caller is told.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from lowmem_rl.errors import RunDirError

LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""What is locked is emptied: a directory from elsewhere must not have another file of this machine emptied."""
LONGEST_OWNER = 200
"""Bytes read of what should be a process and a machine."""


@contextlib.contextmanager
def locked(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock `path`. Raises `RunDirError` where another process has it, or it cannot be made."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
    except OSError as error:
        raise RunDirError(
            f"{path.parent} cannot be written: {error.strerror}.", hint="Make it writable, or give another with --out."
        ) from error
    try:
        _take(descriptor, path, tell)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time read a file in `folder` and write it anew: others wait, for a moment.

    It makes no file, for which there may be no room. Where the file system knows no locks, nobody waits.
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


def _take(descriptor: int, path: Path, tell: Callable[[str], None]) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, LONGEST_OWNER, 0).decode("utf-8", "replace").strip() or "another process"
        raise RunDirError(
            f"{path.parent} is in use by {owner}.", hint="Wait until it has ended, or stop it; it saves first."
        ) from error
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in LOCKLESS:
            raise
        tell(f"{path.parent} cannot be locked here: see to it that no second process works in it")
        return
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
