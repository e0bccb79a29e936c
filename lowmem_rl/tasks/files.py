"""Rows from files: JSON Lines, JSON, CSV and parquet. Nothing in a file is evaluated."""

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError, TaskError
from lowmem_rl.tasks.source_row import SourceRow

LONGEST_LINE = 1_000_000
"""Characters of one JSON line; a longer one is no problem with its answer."""
LARGEST_JSON_BYTES = 256 * 2**20
"""A .json file is read whole; JSON Lines have no such limit."""

_ONE_A_LINE = 'One object a line: {"question": "...", "answer": "..."}.'


def read_files(files: Iterable[Path], columns: Collection[str] = ()) -> Iterator[SourceRow]:
    """Yields the rows of files; of parquet only `columns` are read, where given. Raises `TaskError`, `SetupError`."""
    for file in files:
        if file.suffix not in READERS:
            raise TaskError(f"{file} is no data file.", hint=f"Known endings: {', '.join(READERS)}.")
        yield from READERS[file.suffix](file, columns)


def numbered(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[SourceRow]:
    """Yields records as rows, counted from 1 as the viewers of data sets do not: a person counts so."""
    return (SourceRow(f"{name} row {number}", record) for number, record in enumerate(records, start=1))


def _read_json_lines(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            where = f"{file.name} line {number}"
            yield SourceRow(where, _record(_parse(line, where), where))


def _lines(file: Path) -> Iterator[str]:
    """Yields a text file's lines, without ever holding more than `LONGEST_LINE` characters."""
    try:
        with file.open(encoding="utf-8-sig") as text:
            while line := text.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise TaskError(f"{file} has a line of more than {LONGEST_LINE} characters.", hint=_ONE_A_LINE)
                yield line
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read as text: {error}.", hint="Save it as UTF-8.") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not JSON: {error}.", hint=_ONE_A_LINE) from error


def _record(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TaskError(f"{where} holds {type(value).__name__}, not an object.", hint=_ONE_A_LINE)
    return value


def _read_json(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    if file.stat().st_size > LARGEST_JSON_BYTES:
        raise TaskError(f"{file} is too large to be read whole.", hint="Save it as JSON Lines, one object a line.")
    records = _parse(_whole(file), file.name)
    if not isinstance(records, list):
        raise TaskError(f"{file.name} holds no list of rows.", hint="A .json file is a list of objects.")
    for number, record in enumerate(records, start=1):
        where = f"{file.name} row {number}"
        yield SourceRow(where, _record(record, where))


def _whole(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read as text: {error}.", hint="Save it as UTF-8.") from error


def _read_csv(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    reader = csv.DictReader(_lines(file), strict=True)
    try:
        for number, record in enumerate(reader, start=1):
            where = f"{file.name} row {number}"
            if None in record:
                raise TaskError(f"{where} has more fields than the header.", hint="Quote fields that hold commas.")
            yield SourceRow(where, record)
    except csv.Error as error:
        raise TaskError(f"{file.name} line {reader.line_num} is not CSV: {error}.", hint="Check its quotes.") from error


def _read_parquet(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    """Reads batch by batch: some sets carry gigabytes of solutions beside the two columns that are used."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise SetupError(
            "Parquet files need the package pyarrow, which comes with datasets.",
            hint="Install lowmem-rl[train], or give JSON Lines in task.path.",
        ) from error
    try:
        content = parquet.ParquetFile(file)
        # Where one is missing all are read: the error then names those that are there.
        wanted = list(columns) if columns and set(columns) <= set(content.schema_arrow.names) else None
        batches = content.iter_batches(columns=wanted)
        yield from numbered((record for batch in batches for record in batch.to_pylist()), file.name)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
        raise TaskError(
            f"{file} cannot be read as parquet: {str(error).rstrip('.')}.", hint="Fetch the file again."
        ) from error


READERS: dict[str, Callable[[Path, Collection[str]], Iterator[SourceRow]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
