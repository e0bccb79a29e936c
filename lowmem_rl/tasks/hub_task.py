"""A published data set as a task: where its rows lie, and how one of them becomes a problem.

A set without held-out rows keeps a share of its own for the test split, chosen by a hash of the
question (`splits`). Gold answers that no completion could match are refused when rows are loaded.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example, Message
from lowmem_rl.prompts import instructions, perfect_completion
from lowmem_rl.tasks.loaders import HubData, has_test_split, load_rows
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.splits import is_held_out, place_of
from lowmem_rl.tasks.task import Selection, Split, check_levels
from lowmem_rl.verify import check_gold

HELD_OUT_SHARE = 0.05
"""Of sets of 40,000 rows and more, which have no test split: 2,000 problems at least."""

SCRAPED_BAD_SHARE = 0.01
"""Tolerated in sets that were gathered by machine from many sources, and that no user can mend."""
VERIFIED = {"boxed_answer", "any_answer"}
"""Rewards that compare an answer with the gold one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a row says. `turns` replaces the question where the set brings a whole conversation."""

    question: str
    answer: str
    thoughts: str = ""
    level: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Message, ...] = ()
    group: str = ""
    """What variants of a problem share, where the question does not say it: all of them are in one split."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A task over rows. Called with a convention and a path it returns itself with those."""

    name: str
    summary: str
    data: HubData
    read: Callable[[SourceRow], Problem | None]
    """Returns a row's problem, None for a row of another kind. Raises `TaskError` for one that is unusable."""
    test_data: HubData | None = None
    """Where the test split lies in a repository of its own."""
    levels: tuple[int, ...] = ()
    rewards: tuple[str, ...] = ("boxed_answer", "any_answer")
    """Names of the rewards that judge the answers."""
    bad_share: float = 0.0
    """Share of rows that may be unusable, and are left out and told of; above it the data is refused."""
    sorted_by: str = ""
    """What the rows are sorted by. The test split is mixed then: its first hundred stand for the whole."""
    solve: Callable[[Example], str] = lambda example: example.answer
    """Returns a perfect answer, where `Example.answer` is only what it must come to."""
    convention: str = "think_boxed"
    path: str | None = None

    has_data: ClassVar[bool] = True

    def __call__(self, convention: str, path: str | None = None) -> "DataSet":
        return replace(self, convention=convention, path=path)

    @property
    def source(self) -> str:
        """What the data is called on the hub."""
        return " and ".join(dict.fromkeys(_title(data) for data in (self.data, self.test_data) if data))

    @property
    def held_out(self) -> str:
        """Which problems are never trained on."""
        data = self.test_data or self.data
        return f"its {data.test} split" if data.test else "a twentieth of its rows, by a hash of the question"

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields train shuffled by the seed, test in one order. Raises `TaskError`, `SetupError`."""
        problems, _ = self._load(selection.split)
        known = self.levels or {problem.level for _, problem in problems if problem.level is not None}
        check_levels(self.name, known, selection.levels)
        chosen = [(n, p) for n, p in problems if not selection.levels or p.level in selection.levels]
        if selection.split == "train":
            random.Random(selection.seed).shuffle(chosen)
        for number, problem in chosen[: selection.limit]:
            yield self._example(problem, f"{self.name}/{selection.split}/{number}")

    def gold_completion(self, example: Example) -> str:
        """Returns the data set's own reasoning, where it has one, and the gold answer in the asked form."""
        return perfect_completion(self.solve(example), self.convention, example.extra.get("reasoning", ""))

    def left_out(self, split: Split) -> list[str]:
        """Returns what is wrong with each row that is left out as known to be unusable."""
        return [str(mistake) for mistake in self._load(split)[1]] if self.bad_share else []

    def _example(self, problem: Problem, example_id: str) -> Example:
        turns = problem.turns or ({"role": "user", "content": problem.question},)
        return Example(
            id=example_id,
            prompt=(*instructions(self.convention), *turns),
            answer=problem.answer,
            level=problem.level,
            extra={**problem.extra, "reasoning": problem.thoughts},
        )

    def _load(self, split: Split) -> tuple[list[tuple[int, Problem]], list[TaskError]]:
        """Returns the problems of a split with their rows' numbers, and the mistakes of rows that are left out."""
        data = self.test_data if split == "test" and self.test_data else self.data
        own_test = has_test_split(data, self.path) or self.test_data is not None
        problems, mistakes, rows = [], [], 0
        for rows, row in enumerate(load_rows(data, split if own_test else "train", self.path), start=1):
            try:
                problem = self._problem(row)
            except TaskError as mistake:
                mistakes.append(mistake)
                continue
            if problem and (
                own_test or is_held_out(problem.group or problem.question, HELD_OUT_SHARE) == (split == "test")
            ):
                problems.append((rows - 1, problem))
        if len(mistakes) > self.bad_share * rows:
            raise _refused(mistakes)
        if split == "test" and (self.sorted_by or not own_test):
            problems.sort(key=lambda numbered: place_of(numbered[1].question))
        return problems, mistakes

    def _problem(self, row: SourceRow) -> Problem | None:
        problem = self.read(row)
        if problem and VERIFIED & set(self.rewards):
            try:
                check_gold(problem.answer)
            except TaskError as error:
                raise TaskError(f"{row.where}: {error}", hint=error.hint) from error
        return problem


def _title(data: HubData) -> str:
    return f"{data.repository}, {data.configuration}" if data.configuration else data.repository


MOST_NAMED = 5
"""Unusable rows that an error names beside the first."""


def _refused(mistakes: Sequence[TaskError]) -> TaskError:
    """Returns the first mistake as the error, with the places of the next ones."""
    first, *others = mistakes
    if not others:
        return first
    places = [str(mistake).partition(":")[0] for mistake in others[:MOST_NAMED]]
    more = ", ..." if len(others) > MOST_NAMED else ""
    return TaskError(f"{first} Unusable, too: {', '.join(places)}{more} ({len(others)} rows).", hint=first.hint)
