"""Tables as text: CSV, and its relatives with tabs, semicolons or bars. The first line names the columns."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from lowmem_rl.errors import TaskError
from lowmem_rl.tasks.json_rows import is_json
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.text_file import LONGEST_LINE, lines_of, open_text

_DELIMITERS = ",\t;|"
_EXCEL_MARKS = {f"sep={delimiter}".rstrip(): delimiter for delimiter in _DELIMITERS}
"""First lines in which Excel writes the delimiter."""


def read_delimited(file: Path, columns: Collection[str] = ()) -> Iterator[SourceRow]:
    """Yields the rows of a table. Its delimiter is the one that finds most of `columns`, then most names.

    Raises `TaskError` for a file that is no such table.
    """
    csv.field_size_limit(LONGEST_LINE)  # else 131,072 characters, and some solutions are longer
    with open_text(file) as stream:
        lines = lines_of(stream, file.name)
        skipped, head = next(((n, line) for n, line in enumerate(lines) if line.strip()), (0, ""))
        if (head.lstrip()[:1] in ("{", "[") and is_json(head)) or head.strip() in ("[", "{"):
            raise TaskError(f"{file} holds JSON, not a table.", hint="Let its name end in .jsonl.")
        if head.lower().rstrip() in _EXCEL_MARKS:
            delimiter, skipped, head = _EXCEL_MARKS[head.lower().rstrip()], skipped + 1, next(lines, "")
        else:
            delimiter = "\t" if ".tsv" in file.suffixes and "\t" in head else _delimiter(head, columns)
        records = _records(chain([head], lines), delimiter, skipped, file.name)
        header = _header(next(records, []), file.name)
        for number, record in enumerate(records, start=1):
            yield _row(f"{file.name} row {number}", header, record, delimiter)


def _delimiter(head: str, columns: Collection[str]) -> str:
    def fit(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter, skipinitialspace=True), [])]
        return len({*names} & {*columns}), len(names)

    return max(_DELIMITERS, key=fit)


def _records(lines: Iterable[str], delimiter: str, skipped: int, name: str) -> Iterator[list[str]]:
    """Yields the fields of each row that has any. Raises `TaskError` with the line on which a bad one begins."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        begin = skipped + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            is_open = skipped + reader.line_num > begin or "end of data" in str(error)
            what = "a quote opens and never closes" if is_open else str(error)
            fix = 'A quote within quotes is written twice: "She says ""yes""."'
            raise TaskError(f"{name} line {begin}: {what}.", hint=fix) from error
        if record is None:
            return
        if record:
            yield record


def _header(names: Sequence[str], file: str) -> list[str]:
    """Returns the names of the columns, without empty ones at the end. Raises `TaskError` if one comes twice."""
    header = [name.strip() for name in names]
    while header and not header[-1]:
        header.pop()
    check_names(header, file)
    return header


def check_names(names: Iterable[str], file: str) -> None:
    """Raises `TaskError` if two columns share a name: any choice between them would be silent."""
    twice = [name for name, times in Counter(filter(None, names)).items() if times > 1]
    if twice:
        raise TaskError(f"{file} names column {twice[0]!r} twice.", hint="Give each column its own name.")


def _row(where: str, header: Sequence[str], fields: Sequence[str], delimiter: str) -> SourceRow:
    """Returns a row: fields that it lacks are empty, and empty ones after the last column do not count."""
    if any(field.strip() for field in fields[len(header) :]):
        what = f"{where} has more fields than the header: {len(fields)}, not {len(header)}."
        return SourceRow(where, {}, TaskError(what, hint=f"Quote fields that hold {delimiter!r}."))
    pairs = zip_longest(header, fields[: len(header)], fillvalue="")
    return SourceRow(where, {name: field for name, field in pairs if name})
