"""One record of a data set and its place, so that errors can name it.

A column is a name, or a path into a value (`reward_model.ground_truth`, `turns.0.value`, `turns.-1.value`), also if
that value is JSON in a text. A name that holds dots is found as it is.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lowmem_rl.errors import TaskError

_NOTHING = object()
_MOST_NAMES, _LONGEST_NAME = 30, 60
"""Columns that a message names."""
JOIN = "+"
"""Between the names of columns whose texts are one."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One record and its place: `train.jsonl line 3`."""

    where: str
    values: Mapping[str, Any]
    fault: TaskError | None = None
    """Why the record could not be read; it then has no values."""

    def text(self, column: str) -> str:
        """Returns a column's text. Raises `TaskError` if it is missing, empty or not text."""
        return self._text(self.value(column), column)

    def _text(self, value: Any, column: str) -> str:
        if not isinstance(value, str) or not value.strip():
            found = "empty" if isinstance(value, str) else f"of type {type(value).__name__}"
            raise self.unusable(f"column {column!r} is {found}", _fix_of_type(value, column))
        if not is_encodable(value):
            raise self.unusable(f"column {column!r} holds half of a character", "Write the file as UTF-8 again.")
        return value

    def joined_text(self, columns: str) -> str:
        """Returns the texts of `instruction+input` as paragraphs; some may be empty, not all. Raises `TaskError`."""
        parts = self.parts_of(columns)
        filled = [part for part in parts if str(self.value(part) or "").strip()]
        return "\n\n".join(self.text(part).strip() for part in filled or parts[:1])

    def answer(self, column: str) -> str:
        """Returns a gold answer as text, from a text, a number, or a list of one: 27.0 is `27`.

        Raises `TaskError` for anything else.
        """
        value = self.value(column)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        return self._answer(value, column)

    def answers(self, column: str) -> tuple[str, ...]:
        """Returns each accepted gold answer, one or those of a list, without repetitions. Raises `TaskError`.

        A list written as JSON, `["1/2", "0.5"]`, or as pandas writes it, `['1/2', '0.5']`, is one too: in mathematics
        no answer has such quotes.
        """
        value = self.value(column)
        if isinstance(value, str) and value.lstrip().startswith(('["', "['")):
            value = _texts_in(value) or value
        several = list(value) if isinstance(value, list | tuple) else [value]
        given = [one for one in several if one is not None and one != ""] or several
        if not given:
            raise self.unusable(f"column {column!r} is an empty list", "Each row needs an answer there.")
        return tuple(dict.fromkeys(self._answer(one, column) for one in given))

    def _answer(self, value: Any, column: str) -> str:
        if isinstance(value, Decimal):
            return f"{value.normalize():f}"
        if not isinstance(value, int | float) or isinstance(value, bool):
            return self._text(value, column).strip()
        if not math.isfinite(value):
            raise self.unusable(f"column {column!r} is {value}", "An answer is a finite number, or text.")
        return str(int(value)) if value == int(value) else repr(value)

    def items(self, column: str, kind: type[Any]) -> list[Any]:
        """Returns a column's list. Raises `TaskError` if it is not a list of at least one `kind`."""
        value = self.value(column)
        read = _list_in(value) if isinstance(value, str) else value
        items = [_whole(item) if kind is int else item for item in read] if isinstance(read, list | tuple) else []
        if not items or not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            fix = f"It takes a list, each of type {kind.__name__}."
            raise self.unusable(f"column {column!r} is {value!r:.80}", fix)
        return items

    def integer(self, column: str) -> int:
        """Returns an integer, also one written as text or as 7.0. Raises `TaskError` for anything else."""
        value = self.value(column)
        try:
            number = int(value) if isinstance(value, str) else _whole(value)
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool):
            raise self.unusable(f"column {column!r} is {value!r:.80}", "It takes a whole number.")
        return number

    def value(self, column: str) -> Any:
        """Returns the value of a column or path. Raises `TaskError` if there is none."""
        found = _at(self.values, column)
        if found is _NOTHING:
            raise self.missing(column, "Name the columns as the task's own set on the hub does.")
        return found

    def parts_of(self, columns: str) -> list[str]:
        """Returns the columns that `instruction+input` joins, one if it is itself the name of a column."""
        return [columns] if columns in self.values else columns.split(JOIN)

    def has(self, column: str) -> bool:
        """Returns whether there is a value, null included, in a column or at a path."""
        return _at(self.values, column) is not _NOTHING

    def missing(self, column: str, fix: str) -> TaskError:
        """Returns the error of a column that this row lacks."""
        return self.unusable(_what_is_missing(self.values, column), fix)

    def unusable(self, what: str, fix: str) -> TaskError:
        """Returns the error that names this row."""
        return TaskError(f"{self.where}: {what}.", hint=fix)


def roots_of(columns: Collection[str], names: Collection[str]) -> list[str] | None:
    """Returns those of a table's `names` that hold `columns`; None, for all, if one is missing: errors name them."""
    parts = {part for column in columns for part in ([column] if column in names else column.split(JOIN))}
    roots = {part if part in names else part.partition(".")[0] for part in parts}
    return [name for name in names if name in roots] if roots and roots <= set(names) else None


def is_encodable(text: str) -> bool:
    """Returns whether text can be written as UTF-8: JSON can also hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _at(values: Mapping[str, Any], path: str) -> Any:
    """Returns what is at a path, `_NOTHING` if nothing is."""
    if path in values:
        return values[path]
    found: Any = values
    for part in path.split("."):
        found = _member(found, part)
    return found


def _member(value: Any, name: str) -> Any:
    """Returns a part of an object or a list, also one that a text holds as JSON; `_NOTHING` if there is none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = _json(value)
    if isinstance(value, Mapping):
        return value.get(name, _NOTHING)
    if isinstance(value, list | tuple) and name.removeprefix("-").isdecimal() and len(name) < len("-1000000"):
        return value[int(name)] if -len(value) <= int(name) < len(value) else _NOTHING
    return _NOTHING


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _list_in(text: str) -> Any:
    """Returns the list that a text holds, as JSON or, of numbers, as NumPy prints it: `[44 19 35]`."""
    return _json(re.sub(r"(?<=\d)\s+(?=-?\d)", ", ", text))


def _texts_in(text: str) -> list[Any]:
    """Returns the texts of a list in JSON, or of one that Python or NumPy printed; empty if it is none."""
    if isinstance(read := _json(text), list):
        return read
    items = r"'([^'\\]*)'|\"([^\"\\]*)\""
    is_printed = re.fullmatch(rf"\s*\[(?:(?:{items})[,\s]*)+\]\s*", text)
    return [single or double for single, double in re.findall(items, text)] if is_printed else []


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _what_is_missing(values: Mapping[str, Any], column: str) -> str:
    """Returns which column, or which part of a path, is not there, and what is."""
    path, held = "", values
    for part in () if column in values else column.split(".")[:-1]:
        inner = _member(held, part)
        if not isinstance(inner, Mapping):
            break
        path, held = f"{path}.{part}" if path else part, inner
    owner = repr(path) if path else "it"
    names = [_shown(name) for name in held]
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"no column {column!r}; {owner} has {', '.join(names[:_MOST_NAMES]) or 'none'}{more}"


def _shown(name: Any) -> str:
    """Returns a column's name as it is if that is plain, else quoted and cut."""
    is_plain = isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME and name == name.strip()
    return str(name) if is_plain else f"{name!a:.{_LONGEST_NAME}}"


def _fix_of_type(value: Any, column: str) -> str:
    if isinstance(value, bool):
        return "Write it as text, such as yes or no."
    if isinstance(value, Mapping) and value:
        return f"Name a part of it: {column}.{next(iter(value))}."
    return "Each row needs text there."
