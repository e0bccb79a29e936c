"""Rows from files: JSON in its forms, tables as text, parquet; text also compressed by gzip. Nothing is evaluated."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError, TaskError
from lowmem_rl.tasks.delimited import check_names, read_delimited
from lowmem_rl.tasks.json_rows import read_json
from lowmem_rl.tasks.source_row import SourceRow, roots_of
from lowmem_rl.tasks.text_file import refuse_others

_GZIP = ".gz"


def read_files(files: Iterable[Path], columns: Collection[str] = ()) -> Iterator[SourceRow]:
    """Yields the rows of files; of parquet only `columns`, if given. Raises `TaskError`, `SetupError`."""
    for file in files:
        reader = READERS.get(ending_of(file))
        if reader is None:
            known = ", ".join(READERS)
            raise TaskError(f"{file} is not a data file.", hint=f"Known endings: {known}, and {_GZIP} after each.")
        yield from reader(file, columns)


def ending_of(file: Path) -> str:
    """Returns a file's ending without `.gz`, in lower case: `.csv` of `train.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [_GZIP]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem_of(file: Path) -> str:
    """Returns a file's name without its ending: `train` of `train.csv.gz`."""
    return Path(file.stem).stem if file.suffix.lower() == _GZIP else file.stem


def numbered(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[SourceRow]:
    """Yields records as rows, counted from 1 as a person counts; viewers of data sets count from 0."""
    return (SourceRow(f"{name} row {number}", record) for number, record in enumerate(records, start=1))


def import_reader(package: str, why: str) -> Any:
    """Returns a package of the training stack. Raises `SetupError` with `why` it is needed if it is missing."""
    try:
        return import_module(package)
    except ImportError as error:
        raise SetupError(why, hint="Install lowmem-rl[train], or give JSON Lines in task.path.") from error


def _read_parquet(file: Path, columns: Collection[str]) -> Iterator[SourceRow]:
    """Reads batch by batch: some sets carry gigabytes of solutions in addition to the two columns that are used."""
    refuse_others(file, known=b"PAR1")
    parquet = import_reader("pyarrow.parquet", "Parquet files need the package pyarrow, which comes with datasets.")
    try:
        content = parquet.ParquetFile(file)
        names = content.schema_arrow.names
        check_names(names, file.name)
        batches = content.iter_batches(columns=roots_of(columns, names))
        yield from numbered((record for batch in batches for record in _as_doubles(batch).to_pylist()), file.name)
    except (OSError, ValueError, NotImplementedError, OverflowError) as error:  # pyarrow's own are of these kinds, too
        reason = str(error).partition("\n")[0].rstrip(".")
        fix = "Unpack it: gunzip FILE." if file.suffix.lower() == _GZIP else "Fetch the file again."
        raise TaskError(f"{file} cannot be read as parquet: {reason}.", hint=fix) from error


def _as_doubles(batch: Any) -> Any:
    """Returns a batch whose single-precision columns are doubles of the same digits: 0.1, not 0.10000000149011612."""
    pyarrow = import_module("pyarrow")
    for number, column in enumerate(batch.schema):
        if pyarrow.types.is_float32(column.type):
            digits = batch.column(number).cast(pyarrow.string())
            batch = batch.set_column(number, column.name, digits.cast(pyarrow.float64()))
    return batch


Reader = Callable[[Path, Collection[str]], Iterator[SourceRow]]
_JSON_ENDINGS, _TABLE_ENDINGS = (".jsonl", ".json", ".ndjson"), (".csv", ".tsv")
READERS: dict[str, Reader] = (
    dict.fromkeys(_JSON_ENDINGS, read_json)
    | dict.fromkeys(_TABLE_ENDINGS, read_delimited)
    | {".parquet": _read_parquet}
)
"""By ending; the first one that a folder has is taken."""
