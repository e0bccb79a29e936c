"""One record of a data set and the place it came from, so that whatever is wrong with it can be named."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowmem_rl.errors import TaskError


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One record and where it stands: `train.jsonl line 3`."""

    where: str
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Returns a column's text. Raises `TaskError` where it is missing, empty or no text."""
        value = self.value(column)
        if not isinstance(value, str):
            raise self.unusable(f"column {column!r} is of type {type(value).__name__}", "Each row needs text there.")
        if not value.strip():
            raise self.unusable(f"column {column!r} is empty", "Each row needs text there.")
        return value

    def answer(self, column: str) -> str:
        """Returns a gold answer as text, of a text, a number, or a list of one: 27.0 is `27`.

        Raises `TaskError` for anything else.
        """
        value = self.value(column)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number_as_text(column, value)
        return SourceRow(self.where, {column: value}).text(column).strip()

    def items(self, column: str, kind: type[Any]) -> list[Any]:
        """Returns a column's list. Raises `TaskError` where it is no list of `kind` with at least one."""
        value = self.value(column)
        items = list(value) if isinstance(value, list | tuple) else []
        if not items or not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            raise self.unusable(
                f"column {column!r} is {value!r:.80}", f"It takes a list, each of type {kind.__name__}."
            )
        return items

    def integer(self, column: str) -> int:
        """Returns a whole number, also one written as text. Raises `TaskError` for anything else."""
        value = self.value(column)
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool):
            raise self.unusable(f"column {column!r} is {value!r:.80}", "It takes a whole number.")
        return number

    def value(self, column: str) -> Any:
        """Returns what stands in a column. Raises `TaskError` where there is no such column."""
        if column not in self.values:
            there = ", ".join(map(str, self.values)) or "none"
            cure = "Name the columns as the task's own set on the hub does; of a table, set task.columns."
            raise self.unusable(f"no column {column!r}; it has {there}", cure)
        return self.values[column]

    def unusable(self, what: str, cure: str) -> TaskError:
        """Returns the error that names this row."""
        return TaskError(f"{self.where}: {what}.", hint=cure)

    def _number_as_text(self, column: str, number: float) -> str:
        if not math.isfinite(number):
            raise self.unusable(f"column {column!r} is {number}", "An answer is a finite number, or text.")
        return str(int(number)) if number == int(number) else repr(number)
