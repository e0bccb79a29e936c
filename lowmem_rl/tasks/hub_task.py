"""A published data set as a task: where its rows are, and how a row becomes a problem.

A set without held-out rows keeps a share of its own for the test split, chosen by a hash of the question (`splits`).
Gold answers that no completion could match are refused when rows are loaded.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lowmem_rl.errors import ConfigError, TaskError
from lowmem_rl.example import Example, Message
from lowmem_rl.prompts import instructed, perfect_completion
from lowmem_rl.tasks.gold_answer import AnswerForm, take_answer
from lowmem_rl.tasks.loaders import HubData, has_test_split, is_on_disk, load_rows
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.splits import is_held_out, place_of
from lowmem_rl.tasks.task import Selection, Split, check_levels
from lowmem_rl.verify import check_gold
from lowmem_rl.verify.normalize import LONGEST_ANSWER

_HELD_OUT_SHARE = 0.05
"""Of sets of 40,000 rows and more, which have no test split: at least 2,000 problems."""
_MOST_BAD = 0.5
"""Share of unusable rows above which leaving them out is no advice: then the data is something else."""
_MOST_NAMED = 5
"""Further unusable rows that an error names."""
_SHORT_ONES = (
    'Name the column of short answers in task.columns: this one says none after ####, in a box or by "the answer is".'
)
VERIFIED = {"boxed_answer", "any_answer"}
"""Rewards that compare an answer with the gold one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The problem of a row. `turns` replaces the question if the set has a whole conversation."""

    question: str
    answer: str
    thoughts: str = ""
    level: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Message, ...] = ()
    group: str = ""
    """What variants of a problem share, if the question does not show it: all of them are in one split."""
    read_as: str = ""
    """How the row was read if its columns or its answer were found, not named."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A task over rows. Called with a convention and a path it returns itself with those."""

    name: str
    summary: str
    data: HubData
    read: Callable[[SourceRow], Problem | None]
    """Returns a row's problem, None for a row of another kind. Raises `TaskError` for an unusable row."""
    test_data: HubData | None = None
    """The test split's repository, if it has its own."""
    levels: tuple[float, ...] = ()
    rewards: tuple[str, ...] = ("boxed_answer", "any_answer")
    """Names of the rewards that verify the answers."""
    bad_share: float = 0.0
    """Share of rows that may be unusable; those are left out and reported. Above it the data is refused."""
    eval_share: float | None = None
    """Share of rows that is held out if the data has no held-out split; a twentieth if None."""
    sorted_by: str = ""
    """The order of the rows. The test split is then shuffled: its first hundred represent the whole."""
    answer_form: AnswerForm = "whole"
    """How an answer is taken out of what `read` returns as the answer."""
    solve: Callable[[Example], str] = lambda example: example.answer
    """Returns a perfect answer, if `Example.answer` is only its target."""
    convention: str = "think_boxed"
    path: str | None = None

    has_data: ClassVar[bool] = True

    def __call__(
        self,
        convention: str,
        path: str | None = None,
        max_bad_share: float | None = None,
        eval_share: float | None = None,
    ) -> "DataSet":
        bad_share = self.bad_share if max_bad_share is None else max_bad_share
        return replace(self, convention=convention, path=path, bad_share=bad_share, eval_share=eval_share)

    @property
    def source(self) -> str:
        """The data's name on the hub."""
        sets = [data for data in (self.data, self.test_data) if data]
        titles = [", ".join(filter(None, [data.repository, data.configuration])) for data in sets]
        return " and ".join(dict.fromkeys(titles))

    @property
    def is_on_disk(self) -> bool:
        """True if nothing has to be fetched."""
        own_test = self.test_data or (self.data if self.data.test else None)
        return is_on_disk(self.data, "train", self.path) and (
            own_test is None or is_on_disk(own_test, "test", self.path)
        )

    @property
    def held_out(self) -> str:
        """Which problems are never trained on."""
        data = self.test_data or self.data
        share = "a twentieth" if self.eval_share is None else f"{self.eval_share:.3g}"
        return f"its {data.test} split" if data.test else f"{share} of its rows, by a hash of the question"

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields train shuffled by the seed, test in one order. Raises `TaskError`, `SetupError`."""
        problems, _ = self._load(selection.split)
        known = set(self.levels) or _levels_of(problems)
        if not known.issuperset(selection.levels) and not self.levels and not self._has_held_out_rows():
            known |= _levels_of(self._load("train" if selection.split == "test" else "test")[0])
        check_levels(self.name, known, selection.levels)
        chosen = [(n, p) for n, p in problems if not selection.levels or p.level in selection.levels]
        if selection.split == "train":
            random.Random(selection.seed).shuffle(chosen)
        for number, problem in chosen[: selection.limit]:
            turns = problem.turns or ({"role": "user", "content": problem.question},)
            yield Example(
                id=f"{self.name}/{selection.split}/{number}",
                prompt=instructed(turns, self.convention),
                answer=problem.answer,
                level=problem.level,
                extra={**problem.extra, "reasoning": problem.thoughts, **_reading(problem)},
            )

    def gold_completion(self, example: Example) -> str:
        """Returns the data set's own reasoning, if it has one, and the gold answer in the requested format."""
        return perfect_completion(self.solve(example), self.convention, example.extra.get("reasoning", ""))

    def left_out(self, split: Split) -> list[str]:
        """Returns what is wrong with each row that is left out; of data without held-out rows, all are train's."""
        if not self.bad_share or (split == "test" and not self._has_held_out_rows()):
            return []
        return [str(problem) for problem in self._load(split)[1]]

    def _has_held_out_rows(self) -> bool:
        return self.test_data is not None or has_test_split(self.data, self.path)

    def _load(self, split: Split) -> tuple[list[tuple[int, Problem]], list[TaskError]]:
        """Returns the problems of a split with their rows' numbers, and the errors of rows that are left out."""
        data = self.test_data if split == "test" and self.test_data else self.data
        own_test = self._has_held_out_rows()
        if own_test and self.eval_share is not None:
            fix = "Unset task.eval_share, or take the held-out file away."
            raise ConfigError(f"task.eval_share is {self.eval_share:g}, but the data has held-out rows.", hint=fix)
        share = self.eval_share or _HELD_OUT_SHARE
        problems, unusable, places, rows = [], [], [], 0
        for rows, row in enumerate(load_rows(data, split if own_test else "train", self.path), start=1):
            try:
                problem = self._problem(row)
            except TaskError as error:
                unusable.append(error)
                places.append(row.where)
                continue
            if problem and (own_test or is_held_out(problem.group or problem.question, share) == (split == "test")):
                problems.append((rows - 1, problem))
        if len(unusable) > self.bad_share * rows:
            raise _refusal(unusable, places, rows)
        if split == "test" and (self.sorted_by or not own_test):
            problems.sort(key=lambda numbered: place_of(numbered[1].question))
        return problems, unusable

    def _problem(self, row: SourceRow) -> Problem | None:
        if row.fault:
            raise row.fault
        problem = self.read(row)
        if problem and VERIFIED & set(self.rewards):
            problem = _with_answer(row, problem, self.answer_form)
            try:
                for gold in (problem.answer, *problem.extra.get("accepted_answers", ())):
                    check_gold(gold)
            except TaskError as error:
                is_long = self.answer_form == "auto" and len(problem.answer) > LONGEST_ANSWER
                raise TaskError(f"{row.where}: {error}", hint=_SHORT_ONES if is_long else error.hint) from error
        return problem


def _levels_of(problems: Iterable[tuple[int, Problem]]) -> set[float]:
    return {problem.level for _, problem in problems if problem.level is not None}


def _reading(problem: Problem) -> dict[str, str]:
    return {"read_as": problem.read_as} if problem.read_as else {}


def _with_answer(row: SourceRow, problem: Problem, form: AnswerForm) -> Problem:
    """Returns the problem with the answer that its text states in a form; the text is then its thoughts.

    Raises `TaskError` if it states none.
    """
    taken = take_answer(problem.answer, form)
    if taken is None:
        raise row.unusable(
            f"its answer {problem.answer!r:.60} states none as task.answer={form} reads it",
            "Set task.answer=auto, or leave the row out.",
        )
    if taken.form == "whole":
        return problem
    others = [take_answer(gold, form) for gold in problem.extra.get("accepted_answers", ())]
    accepted = {"accepted_answers": tuple(one.text for one in others if one)} if others else {}
    found = taken.form if form == "auto" else ""
    read_as = ", ".join(filter(None, [problem.read_as, found and f"task.answer={found}"]))
    thoughts, extra = problem.thoughts or problem.answer, {**problem.extra, **accepted}
    return replace(problem, answer=taken.text, thoughts=thoughts, extra=extra, read_as=read_as)


def _refusal(unusable: Sequence[TaskError], places: Sequence[str], rows: int) -> TaskError:
    """Returns the first error, with the places of the next ones and, if most rows are usable, how to leave them out."""
    first, others = unusable[0], places[1:]
    share = math.ceil(1000 * len(unusable) / rows) / 1000
    fix = f"{first.hint} Or leave such rows out: task.max_bad_share={share}." if share <= _MOST_BAD else first.hint
    more = ", ..." if len(others) > _MOST_NAMED else ""
    also = f" Also unusable: {', '.join(others[:_MOST_NAMED])}{more} ({len(others)} rows)." if others else ""
    return TaskError(f"{first}{also}", hint=fix)
