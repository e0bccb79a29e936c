"""Rows from files: JSON Lines, JSON, CSV and parquet. Nothing in a file is evaluated."""

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError, TaskError
from lowmem_rl.tasks.source_row import SourceRow

_LONGEST_LINE = 1_000_000
"""Characters of one JSON line; a longer one is not a problem with its answer."""
_LARGEST_JSON_BYTES = 256 * 2**20
"""A .json file is read whole; JSON Lines have no such limit."""
_ONE_PER_LINE = 'One object a line: {"question": "...", "answer": "..."}.'


def read_files(files: Iterable[Path], columns: Collection[str] = ()) -> Iterator[SourceRow]:
    """Yields the rows of files; of parquet only `columns`, if given. Raises `TaskError`, `SetupError`."""
    for file in files:
        if file.suffix not in READERS:
            raise TaskError(f"{file} is not a data file.", hint=f"Known endings: {', '.join(READERS)}.")
        yield from READERS[file.suffix](file, columns)


def numbered(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[SourceRow]:
    """Yields records as rows, counted from 1 as a person counts; viewers of data sets count from 0."""
    return (SourceRow(f"{name} row {number}", record) for number, record in enumerate(records, start=1))


def import_reader(package: str, why: str) -> Any:
    """Returns a package of the training stack. Raises `SetupError` with `why` it is needed if it is missing."""
    try:
        return import_module(package)
    except ImportError as error:
        raise SetupError(why, hint="Install lowmem-rl[train], or give JSON Lines in task.path.") from error


def _read_json_lines(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            where = f"{file.name} line {number}"
            yield _json_row(_parse(line, where), where)


def _lines(file: Path) -> Iterator[str]:
    """Yields a text file's lines, without ever holding more than `_LONGEST_LINE` characters."""
    try:
        with file.open(encoding="utf-8-sig") as text:
            while line := text.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise TaskError(f"{file} has a line of more than {_LONGEST_LINE} characters.", hint=_ONE_PER_LINE)
                yield line
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> TaskError:
    return TaskError(f"{file} cannot be read as text: {error}.", hint="Save it as UTF-8.")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not JSON: {error}.", hint=_ONE_PER_LINE) from error


def _json_row(value: Any, where: str) -> SourceRow:
    if not isinstance(value, dict):
        raise TaskError(f"{where} holds {type(value).__name__}, not an object.", hint=_ONE_PER_LINE)
    return SourceRow(where, value)


def _read_json(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    if file.stat().st_size > _LARGEST_JSON_BYTES:
        raise TaskError(f"{file} is too large to be read whole.", hint="Save it as JSON Lines, one object a line.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error
    records = _parse(text, file.name)
    if not isinstance(records, list):
        raise TaskError(f"{file.name} holds no list of rows.", hint="A .json file is a list of objects.")
    for number, record in enumerate(records, start=1):
        yield _json_row(record, f"{file.name} row {number}")


def _read_csv(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    reader = csv.DictReader(_lines(file), strict=True)
    try:
        for row in numbered(reader, file.name):
            if None in row.values:
                raise TaskError(f"{row.where} has more fields than the header.", hint="Quote fields that hold commas.")
            yield row
    except csv.Error as error:
        raise TaskError(f"{file.name} line {reader.line_num} is not CSV: {error}.", hint="Check its quotes.") from error


def _read_parquet(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    """Reads batch by batch: some sets carry gigabytes of solutions in addition to the two columns that are used."""
    parquet = import_reader("pyarrow.parquet", "Parquet files need the package pyarrow, which comes with datasets.")
    try:
        content = parquet.ParquetFile(file)
        # If one is missing all are read: the error then names those that exist.
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
