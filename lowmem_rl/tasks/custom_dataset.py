"""Any table of questions and answers, from a file or from the hub, by the names of its columns.

    [task]
    name = "table"
    path = "my_problems.csv"            # or hub = "ORGANISATION/NAME"
    columns = ["problem", "solution"]   # question, answer and, if there is one, the level

Columns of published sets are found by their names, and `task.answer` takes the answer out of a worked solution.
A column can be a path, `reward_model.ground_truth`; the question can be columns joined as paragraphs,
`instruction+input`, or a conversation. The answer can be a list: any of it is right. Without a file or a name for
held-out rows, `task.eval_share` of the rows, else a twentieth, is held out by a hash of the question.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lowmem_rl.errors import ConfigError
from lowmem_rl.tasks.conversations import is_conversation, read_turns
from lowmem_rl.tasks.gold_answer import AnswerForm
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.known_columns import fix_for_columns, known_columns
from lowmem_rl.tasks.level_label import read_level
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

_UNNAMED = ("question", "answer")
"""`task.columns` if it is not set."""
_BAD_SHARE = 0.01
"""As of the large sets of the hub."""
_LONGEST_COLUMN = 10_000
"""Characters of a text that an example carries for reward functions."""


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
        columns: Sequence[str] = _UNNAMED,
        splits: Sequence[str] = ("train",),
        answer: AnswerForm = "auto",
        max_bad_share: float | None = None,
        eval_share: float | None = None,
    ) -> DataSet:
        _check(path, hub, columns, splits)
        # Of the hub's sets, some with gigabytes of solutions, only these columns are fetched; of own files all.
        fetched = tuple(columns) if hub else ()
        data = HubData(hub or "local files", subset, splits[0], splits[1] if len(splits) == 2 else None, fetched)
        table = DataSet(
            self.name,
            self.summary,
            data,
            lambda row: _read_row(row, columns),
            bad_share=_BAD_SHARE,
            answer_form=answer,
        )
        return table(convention, path, max_bad_share, eval_share)


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


def _read_row(row: SourceRow, columns: Sequence[str]) -> Problem:
    """Returns a row's problem; if it lacks the columns that nobody named, that of the columns a published set has."""
    found = known_columns(row) if tuple(columns) == _UNNAMED and not all(map(row.has, columns)) else None
    question, answer, *level = found or columns
    problem = _with_columns(_problem_in(row, question, answer, *level), row, answer)
    return replace(problem, read_as=f"task.columns={json.dumps(found)}") if found else problem


def _problem_in(row: SourceRow, question: str, answer: str, level: str | None = None) -> Problem:
    parts = row.parts_of(question)
    for column in filter(None, (*parts, answer, level)):
        if not row.has(column):
            raise row.missing(column, fix_for_columns(row))
    number = read_level(row, level) if level else None
    gold, *others = row.answers(answer)
    extra = {"accepted_answers": (gold, *others)} if others else {}
    if len(parts) == 1 and is_conversation(row.value(question)):
        turns = read_turns(row, question)
        return Problem(turns[-1]["content"], gold, level=number, turns=turns, extra=extra)
    return Problem(row.joined_text(question), gold, level=number, extra=extra)


def _with_columns(problem: Problem, row: SourceRow, answer: str) -> Problem:
    """Returns the problem with the columns of its row: reward functions in TRL's form ask for them by name.

    The answer's own column may be a worked solution: by its name they get the answer that is taken out of it.
    """
    texts = {name for name, value in row.values.items() if isinstance(value, str)}
    own = {
        name: value
        for name, value in row.values.items()
        if name not in texts or (name != answer and len(value) <= _LONGEST_COLUMN)
    }
    return replace(problem, extra={**own, "answer_column": answer, **problem.extra})
