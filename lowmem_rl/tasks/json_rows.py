"""Rows from JSON: one object a line, a list of objects, objects one after another, or columns of equal length.

What a file holds decides, not its ending: pandas, datasets and people write each of these as `.json` and as `.jsonl`.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, TextIO

from lowmem_rl.errors import TaskError
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.text_file import LONGEST_LINE, ONE_PER_LINE, lines_of, open_text, too_long

_MOST_CHARACTERS = 256 * 2**20
"""Of JSON that is read whole; lines have no such limit."""
_LISTS = ("data", "rows", "records", "examples", "items", "instances", "questions", "problems")
"""Keys of an object around the rows under which their list is, such as SQuAD's `data`."""
_SPACE = re.compile(r"\s*")
_A_LIST = "Write a list of objects, or one object a line."


class _NamedTwiceError(ValueError):
    """An object with two values of one name: any choice between them would be silent."""


def read_json(file: Path | IO[bytes], columns: Collection[str] = ()) -> Iterator[SourceRow]:
    """Yields the rows of a file, or of a stream such as stdin; a line that is no row is yielded with its fault.

    Raises `TaskError` for a file that holds no rows.
    """
    name = file.name if isinstance(file, Path) else "stdin"
    with open_text(file) as stream:
        number, first = 1, stream.readline(LONGEST_LINE + 1)
        while first and not first.strip():
            number, first = number + 1, stream.readline(LONGEST_LINE + 1)
        others: Iterator[tuple[int, str]]
        others = ((n, line) for n, line in enumerate(lines_of(stream, name), start=number + 1) if line.strip())
        if is_json(first):
            second = next(others, None)
            if second is None:
                yield from _rows_of(_values(first, name), name)
                return
            others = chain([second], others)
        elif first.lstrip()[:1] == "[" or first.strip() == "{" or _is_named_json(file):
            yield from _rows_of(_values(first + _rest(stream, name), name), name)
            return
        elif len(first) > LONGEST_LINE:
            raise too_long(name)
        for n, line in chain([(number, first)] if first else [], others):
            yield _row_of_line(line, f"{name} line {n}")


def is_json(text: str) -> bool:
    """Returns whether a text is one value of JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_named_json(file: Path | IO[bytes]) -> bool:
    return isinstance(file, Path) and ".json" in file.suffixes


def _rest(stream: TextIO, name: str) -> str:
    text = stream.read(_MOST_CHARACTERS + 1)
    if len(text) > _MOST_CHARACTERS:
        raise TaskError(f"{name} is too large to be read whole.", hint="Save it as JSON Lines, one object a line.")
    return text


def _row_of_line(line: str, where: str) -> SourceRow:
    try:
        return _row(json.loads(line, object_pairs_hook=_once), where)
    except (ValueError, RecursionError) as error:
        return SourceRow(where, {}, _not_json(where, line, error))


def _row(value: Any, where: str) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(where, value)
    fault = TaskError(f"{where} holds {type(value).__name__}, not an object.", hint=ONE_PER_LINE)
    return SourceRow(where, {}, fault)


def _values(text: str, name: str) -> list[Any]:
    """Returns the values that follow one another in a text."""
    decoder, values, end = json.JSONDecoder(object_pairs_hook=_once), [], 0
    while (start := _end_of_space(text, end)) < len(text):
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise _not_json(name, text[start : start + 100], error, _A_LIST) from error
        values.append(value)
    return values


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwiceError(next(name for name in names if names.count(name) > 1))
    return values


def _not_json(where: str, text: str, error: Exception, fix: str = ONE_PER_LINE) -> TaskError:
    if isinstance(error, _NamedTwiceError):
        return TaskError(f"{where}: an object names {str(error)!r:.80} twice.", hint="Give each value its own name.")
    if text.lstrip()[:1] not in ("{", "["):
        fix += " A table's name ends in .csv."
    elif text.lstrip().startswith(("{'", "[{'")):
        fix = "JSON has double quotes: write each row by json.dumps(row)."
    return TaskError(f"{where} is not JSON: {str(error).rstrip('.')}.", hint=fix)


def _rows_of(values: list[Any], name: str) -> Iterator[SourceRow]:
    rows = _unwrapped(values[0], name) if len(values) == 1 else values
    return (_row(row, f"{name} row {number}") for number, row in enumerate(rows, start=1))


def _unwrapped(value: Any, name: str) -> Iterable[Any]:
    """Returns the rows that a single value holds. Raises `TaskError` if it holds several lists of them."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise TaskError(f"{name} holds {type(value).__name__}, no rows.", hint=_A_LIST)
    lists = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if wrapper := next((key for key in _LISTS if key in lists), None):
        return list(value[wrapper])
    if len(lists) > 1 and len(lists) == len(value):
        fix = f"Save each list as a file of its own, such as {lists[0]}.json."
        raise TaskError(f"{name} holds the lists {', '.join(lists)}.", hint=fix)
    return _split_rows(value) or _transposed(value) or [value]


def _split_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows that pandas writes by orient="split" or "index". Empty if it is neither."""
    names, rows = table.get("columns"), table.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(name, str) for name in names):
        is_table = all(isinstance(row, list) and len(row) == len(names) for row in rows)
        return [dict(zip(names, row, strict=True)) for row in rows] if is_table else []
    is_table = all(number.isdecimal() and isinstance(row, dict) for number, row in table.items())
    return list(table.values()) if is_table else []


def _transposed(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of columns: lists of one length, or pandas' objects by row number. Empty if it is neither."""
    first, *others = columns.values() or [None]
    if isinstance(first, dict) and all(map(str.isdecimal, first)):
        is_table = all(isinstance(column, dict) and column.keys() == first.keys() for column in others)
        return [{name: column[index] for name, column in columns.items()} for index in first] if is_table else []
    if isinstance(first, list) and others and not any(isinstance(value, dict) for value in first):
        is_table = all(isinstance(column, list) and len(column) == len(first) for column in others)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] if is_table else []
    return []
