"""Standard streams that cannot be written: closed, on a full device, without a reader, of a narrow encoding."""

import io
import os
import sys
from typing import Any, TextIO

_STDOUT = "standard output"


class _Stdout(io.FileIO):
    """Standard output, whose errors bear its name: those of other files are not its fault."""

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]  # None: not ready, as in the base class
        try:
            return super().write(data)
        except OSError as error:
            error.filename = _STDOUT
            raise


def prepare() -> None:
    """Opens the null device for closed streams, and lets the others spell out what their encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Opening takes the lowest free descriptor, the stream's own: else the next file that is opened would be stdout.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the life of the process
    if sys.__stdout__ and sys.stdout is sys.__stdout__:  # not one of a test or a notebook
        sys.stdout = _with_named_errors(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _with_named_errors(stdout: TextIO) -> TextIO:
    raw = _Stdout(stdout.fileno(), "w", closefd=False)
    # Line by line into a pipe, too: `report --follow` prints its address and goes on.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stdout.encoding, line_buffering=True)


def lost_reader(error: BaseException) -> bool:
    """Returns whether an error means that the reader of a pipe is gone; Typer turns that into `SystemExit`."""
    return isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)


def stdout_fault(error: OSError) -> str | None:
    """Returns why standard output cannot be written if that is what the error is about."""
    return error.strerror if error.filename == _STDOUT else None


def abandon_broken() -> None:
    """Keeps Python from failing when it closes a stream that cannot be written (docs.python.org, signal)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
