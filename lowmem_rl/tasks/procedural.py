"""Tasks that make their problems: levels, each with a maker, and a fifth of all problems held out by a hash.

The same seed makes the same problems in the same order; no problem comes twice.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeVar

from lowmem_rl.example import Example
from lowmem_rl.prompts import conversation, perfect_completion
from lowmem_rl.tasks.splits import is_held_out
from lowmem_rl.tasks.task import Selection, check_levels

TEST_SHARE = 0.2
HELD_OUT = "a fifth of its problems, by a hash"
MOST_REPEATS = 1000
"""Draws without a new problem after which the levels count as used up."""


class MadeProblem(Protocol):
    """What a maker makes."""

    @property
    def text(self) -> str:
        """Tells the problem from every other one."""
        ...

    @property
    def held_out(self) -> bool:
        """Belongs to the test split."""
        ...


M = TypeVar("M", bound=MadeProblem)


def distinct(
    makers: Mapping[int, Callable[[random.Random], M]], rng: random.Random, selection: Selection
) -> Iterator[tuple[int, M]]:
    """Yields problems of the split with their levels, each once, until the limit or until the levels are used up."""
    levels = selection.levels or tuple(makers)
    seen: set[str] = set()
    repeats = 0
    while repeats < MOST_REPEATS and (selection.limit is None or len(seen) < selection.limit):
        level = rng.choice(levels)
        problem = makers[level](rng)
        if problem.text in seen or problem.held_out != (selection.split == "test"):
            repeats += 1
            continue
        repeats = 0
        seen.add(problem.text)
        yield level, problem


@dataclass(frozen=True, slots=True)
class GeneratedProblem:
    """A made problem. `group` is what its variants share: all of them are in one split."""

    text: str
    group: str
    question: str
    answer: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held_out(self) -> bool:
        return is_held_out(self.group, TEST_SHARE)


@dataclass(frozen=True, slots=True)
class ProceduralTask:
    """A task over makers, one a level. Called with a convention it returns itself with that."""

    name: str
    summary: str
    makers: Mapping[int, Callable[[random.Random], GeneratedProblem]]
    rewards: tuple[str, ...]
    """Names of the rewards that judge the answers."""
    solve: Callable[[Example], str] = lambda example: example.answer
    """Returns a perfect answer, where `Example.answer` is only what it must come to."""
    convention: str = "think_boxed"

    has_data: ClassVar[bool] = False
    held_out: ClassVar[str] = HELD_OUT

    def __call__(self, convention: str) -> "ProceduralTask":
        return replace(self, convention=convention)

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(self.makers)

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields distinct problems of the split, levels drawn evenly; raises `TaskError` for unknown levels."""
        check_levels(self.name, self.makers, selection.levels)
        rng = random.Random(f"{self.name}-{selection.split}-{selection.seed}")
        for level, puzzle in distinct(self.makers, rng, selection):
            yield Example(
                id=f"{self.name}/{puzzle.text}",
                prompt=conversation(puzzle.question, self.convention),
                answer=puzzle.answer,
                level=level,
                extra=puzzle.extra,
            )

    def gold_completion(self, example: Example) -> str:
        """Returns a perfect answer in the asked form, behind an empty think block."""
        return perfect_completion(self.solve(example), self.convention)
