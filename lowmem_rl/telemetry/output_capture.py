"""Captures what the libraries print while a model is running."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def capture_library_output(path: Path) -> Iterator[None]:
    """Sends what the libraries print to a file: their banners would tear the live display."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        io.TextIOWrapper(io.BufferedWriter(_opened(path)), encoding="utf-8", errors="replace") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def _opened(path: Path) -> "_LogFile":
    """Opens the log file; not a link, which would write into another file, and without waiting for a pipe's reader."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return _LogFile(path, "a", opener=lambda name, mode: os.open(name, mode | flags, 0o666))
    except OSError:
        return _LogFile(os.devnull, "a")


class _LogFile(io.FileIO):
    """A file whose disk may be full: what a library prints is not worth a run."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)
