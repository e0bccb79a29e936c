"""One record of a data set and its place, so that errors can name it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowmem_rl.errors import TaskError


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One record and its place: `train.jsonl line 3`."""

    where: str
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Returns a column's text. Raises `TaskError` if it is missing, empty or not text."""
        value = self.value(column)
        if not isinstance(value, str) or not value.strip():
            found = "empty" if isinstance(value, str) else f"of type {type(value).__name__}"
            raise self.unusable(f"column {column!r} is {found}", "Each row needs text there.")
        return value

    def answer(self, column: str) -> str:
        """Returns a gold answer as text, from a text, a number, or a list of one: 27.0 is `27`.

        Raises `TaskError` for anything else.
        """
        value = self.value(column)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, int | float) or isinstance(value, bool):
            return SourceRow(self.where, {column: value}).text(column).strip()
        if not math.isfinite(value):
            raise self.unusable(f"column {column!r} is {value}", "An answer is a finite number, or text.")
        return str(int(value)) if value == int(value) else repr(value)

    def items(self, column: str, kind: type[Any]) -> list[Any]:
        """Returns a column's list. Raises `TaskError` if it is not a list of at least one `kind`."""
        value = self.value(column)
        items = list(value) if isinstance(value, list | tuple) else []
        if not items or not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            raise self.unusable(
                f"column {column!r} is {value!r:.80}", f"It takes a list, each of type {kind.__name__}."
            )
        return items

    def integer(self, column: str) -> int:
        """Returns an integer, also one written as text. Raises `TaskError` for anything else."""
        value = self.value(column)
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool):
            raise self.unusable(f"column {column!r} is {value!r:.80}", "It takes a whole number.")
        return number

    def value(self, column: str) -> Any:
        """Returns a column's value. Raises `TaskError` if there is no such column."""
        if column not in self.values:
            raise self.unusable(
                f"no column {column!r}; it has {', '.join(map(str, self.values)) or 'none'}",
                "Name the columns as the task's own set on the hub does; of a table, set task.columns.",
            )
        return self.values[column]

    def unusable(self, what: str, fix: str) -> TaskError:
        """Returns the error that names this row."""
        return TaskError(f"{self.where}: {what}.", hint=fix)
