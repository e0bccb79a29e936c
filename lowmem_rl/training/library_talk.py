"""Where the libraries' banners go while a model is at work."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def library_talk_to(path: Path) -> Iterator[None]:
    """Sends what the libraries print to a file: their banners would tear the live display."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        io.TextIOWrapper(io.BufferedWriter(_Talk(path, "a")), encoding="utf-8", errors="replace") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


class _Talk(io.FileIO):
    """A file whose disk may be full: what a library says is not worth a run."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)
