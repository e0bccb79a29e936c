"""The text of a data file, plain or compressed by gzip, in UTF-8 or marked UTF-16. What is no text is named."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, TextIO, cast

from lowmem_rl.errors import TaskError

LONGEST_LINE = 1_000_000
"""Characters of one line; a longer one is not a problem with its answer."""
ONE_PER_LINE = 'One object a line: {"question": "...", "answer": "..."}.'

_GZIP = b"\x1f\x8b"
_UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OTHERS = {
    b"PAR1": ("a parquet file", "Let its name end in .parquet."),
    b"ARROW1": ("an Arrow file", "Write it with datasets: data.to_parquet(FILE)."),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV in UTF-8."),
    b"BZh": ("compressed by bzip2", "Unpack it: bunzip2 FILE."),
    b"\xfd7zXZ": ("compressed by xz", "Unpack it: unxz FILE."),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "Unpack it: zstd -d FILE."),
    b"SQLite format 3": ("an SQLite database", "Save its table as CSV."),
    b"version https://git-lfs": ("a pointer of Git LFS, without the data", "Fetch the data: git lfs pull."),
    b"<!doctype": ("a web page", "Download the file itself; on the hub its address has resolve/main, not blob/main."),
    b"<html": ("a web page", "Download the file itself; on the hub its address has resolve/main, not blob/main."),
}
"""First bytes, in lower case where they are letters of a page: what such a file is, and the fix."""


@contextmanager
def open_text(file: Path | IO[bytes]) -> Iterator[TextIO]:
    """Opens a file, or a stream such as stdin. Raises `TaskError` if it, or a part read later, is not text."""
    name = str(file) if isinstance(file, Path) else "stdin"
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as raw:
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if _head(raw).startswith(_GZIP) else raw
            yield TextIOWrapper(cast(BufferedReader, stream), encoding=_encoding(_head(stream), name), newline=None)
    except UnicodeError as error:
        before = error.object[: error.start][-20:] if isinstance(error, UnicodeDecodeError) else b""
        what = f"{name} cannot be read as text: it is not UTF-8 after {before.decode('ascii', 'replace')!a}."
        raise TaskError(what, hint="Save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 FILE.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"{name} is damaged gzip: {error}.", hint="Fetch the file again.") from error
    except OSError as error:
        what = f"{name} cannot be read: {error.strerror or error}."
        raise TaskError(what, hint="Name a file that you may read.") from error


def lines_of(stream: TextIO, name: str) -> Iterator[str]:
    """Yields lines, without ever holding more than one. Raises `TaskError` for one that is too long."""
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise too_long(name)
        yield line


def too_long(name: str) -> TaskError:
    """Returns the error of a file with a line that is too long."""
    return TaskError(f"{name} has a line of more than {LONGEST_LINE} characters.", hint=ONE_PER_LINE)


def _head(stream: IO[bytes]) -> bytes:
    return cast(BufferedReader, stream).peek(64)[:64]


def refuse_others(file: Path, known: bytes) -> None:
    """Raises `TaskError` if a file begins as one of a kind that is no data file and not the `known` one."""
    with suppress(OSError), file.open("rb") as stream:
        head = stream.read(64)
        if not head.startswith(known):
            _refuse(head, str(file))


def _refuse(head: bytes, name: str) -> None:
    for mark, (what, fix) in _OTHERS.items():
        if head.startswith(mark) or head.lower().startswith(mark):
            raise TaskError(f"{name} is {what}.", hint=fix)


def _encoding(head: bytes, name: str) -> str:
    _refuse(head, name)
    if head.startswith(_UTF_32):
        return "utf-32"
    if head.startswith(_UTF_16):
        return "utf-16"
    if b"\0" in head:
        raise TaskError(f"{name} is not text: it holds zero bytes.", hint="Save it as UTF-8 text.")
    return "utf-8-sig"
