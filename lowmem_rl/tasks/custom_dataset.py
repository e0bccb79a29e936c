"""Any table of questions and answers, from a file or from the hub, by the names of its columns.

    [task]
    name = "table"
    path = "my_problems.csv"            # or hub = "ORGANISATION/NAME"
    columns = ["problem", "solution"]   # question, answer and, if there is one, the level

A column of conversations (lists of `role`, `content`) can be the question. Without a file or a name for held-out
rows, a twentieth of the rows is held out by a hash of the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lowmem_rl.errors import ConfigError
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.rlvr import read_turns
from lowmem_rl.tasks.source_row import SourceRow


@dataclass(frozen=True, slots=True)
class CustomDataset:
    """Constructs the task over a table. Raises `ConfigError` if the table or its columns are not named."""

    name: ClassVar[str] = "table"
    summary: ClassVar[str] = "a table of your own or of the hub, by its columns"
    has_data: ClassVar[bool] = True
    rewards: ClassVar[tuple[str, ...]] = ("boxed_answer", "any_answer")

    def __call__(
        self,
        convention: str,
        path: str | None = None,
        hub: str | None = None,
        subset: str | None = None,
        columns: Sequence[str] = ("question", "answer"),
        splits: Sequence[str] = ("train",),
    ) -> DataSet:
        _check(path, hub, columns, splits)
        data = HubData(hub or "local files", subset, splits[0], splits[1] if len(splits) == 2 else None, tuple(columns))
        return DataSet(
            self.name, self.summary, data, lambda row: _read_row(row, *columns), convention=convention, path=path
        )


TABLE = CustomDataset()


def _check(path: str | None, hub: str | None, columns: Sequence[str], splits: Sequence[str]) -> None:
    if bool(path) == bool(hub):
        what = "both task.path and task.hub" if path else "no data"
        fix = "Set task.path to a file, or task.hub to ORGANISATION/NAME."
        raise ConfigError(f"Task 'table' has {what}.", hint=fix)
    if not 2 <= len(columns) <= 3:
        fix = 'It takes 2 or 3: ["question", "answer", "level"].'
        raise ConfigError(f"task.columns names {len(columns)} columns.", hint=fix)
    if not 1 <= len(splits) <= 2:
        raise ConfigError(f"task.splits names {len(splits)} splits.", hint='It takes 1 or 2: ["train", "validation"].')


def _read_row(row: SourceRow, question: str, answer: str, level: str | None = None) -> Problem:
    number = row.integer(level) if level else None
    if isinstance(row.value(question), list):
        turns = read_turns(row, question)
        return Problem(turns[-1]["content"], row.answer(answer), level=number, turns=turns)
    return Problem(row.text(question).strip(), row.answer(answer), level=number)
