"""`Task`: a source of examples with a perfect completion for each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example

Split = Literal["train", "test"]
_MOST_LEVELS = 20
"""That a message names."""
ROLES = ("system", "user", "assistant")
"""Roles of the messages of a prompt."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which examples: split, how many at most (None: all), of which levels (empty: all), in which order."""

    split: Split
    limit: int | None = None
    levels: tuple[float, ...] = ()
    seed: int = 0


class Task(Protocol):
    """One data set with its prompt convention. Examples of `test` are never in `train`.

    A task may also have `levels` (the numbers of its levels), `rewards` (the names of those that verify its
    answers), `source` (its data's name on the hub) and `left_out(split)` (rows it leaves out, and why).
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def has_data(self) -> bool:
        """True if it reads data that `task.path` can replace; False if it generates its problems."""
        ...

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields examples in an order fixed by `selection`. Raises `TaskError` for unusable data."""
        ...

    def gold_completion(self, example: Example) -> str:
        """Returns a completion that every correctness reward must pay in full."""
        ...


def check_levels(task: str, known: Collection[float], wanted: Collection[float]) -> None:
    """Raises `TaskError` for a level that a task does not have."""
    unknown = set(wanted) - set(known)
    if unknown and not known:
        raise TaskError(f"Task {task!r} has no levels.", hint="Leave task.levels empty.")
    if unknown:
        ordered = sorted(known)
        levels = ", ".join(map(str, ordered[:_MOST_LEVELS])) + (
            f", ... {ordered[-1]}" if ordered[_MOST_LEVELS:] else ""
        )
        raise TaskError(f"Task {task!r} has no level {min(unknown)}.", hint=f"Levels: {levels}.")
