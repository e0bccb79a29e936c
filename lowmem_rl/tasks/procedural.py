"""Tasks that generate their problems: levels, each with a generator, and a fifth of all problems held out by a hash.

The same seed generates the same problems in the same order; no problem comes twice.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lowmem_rl.example import Example
from lowmem_rl.prompts import conversation, perfect_completion
from lowmem_rl.tasks.splits import is_held_out
from lowmem_rl.tasks.task import Selection, check_levels

_TEST_SHARE = 0.2
_MOST_REPEATS = 1000
"""Draws without a new problem after which the levels count as used up."""


@dataclass(frozen=True, slots=True)
class GeneratedProblem:
    """A generated problem. `group` is what its variants share: all of them are in one split."""

    text: str
    """Distinguishes the problem from every other one."""
    group: str
    question: str
    answer: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def held_out(self) -> bool:
        """True if it belongs to the test split."""
        return is_held_out(self.group, _TEST_SHARE)


Generator = Callable[[random.Random], GeneratedProblem]


@dataclass(frozen=True, slots=True)
class ProceduralTask:
    """A task over generators, one per level. Called with a convention it returns itself with that."""

    name: str
    summary: str
    generators: Mapping[float, Generator]
    rewards: tuple[str, ...]
    """Names of the rewards that verify the answers."""
    solve: Callable[[Example], str] = lambda example: example.answer
    """Returns a perfect answer, if `Example.answer` is only its target."""
    convention: str = "think_boxed"
    seed_prefix: str | None = None
    """Start of the random seed, the name if None. Arithmetic's is empty: published records depend on its problems."""
    only_named: frozenset[float] = frozenset()
    """Levels that a run has only if it names them."""

    has_data: ClassVar[bool] = False
    held_out: ClassVar[str] = "a fifth of its problems, by a hash"

    def __call__(self, convention: str) -> "ProceduralTask":
        return replace(self, convention=convention)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of a run that names none."""
        return tuple(level for level in self.generators if level not in self.only_named)

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields distinct problems of the split, levels drawn evenly. Raises `TaskError` for unknown levels."""
        check_levels(self.name, self.generators, selection.levels)
        for level, problem in self._distinct(selection):
            yield Example(
                id=f"{self.name}/{problem.text}",
                prompt=conversation(problem.question, self.convention),
                answer=problem.answer,
                level=level,
                extra=problem.extra,
            )

    def _distinct(self, selection: Selection) -> Iterator[tuple[float, GeneratedProblem]]:
        """Yields levels and problems of the split, each once, until the limit or until the levels are used up."""
        prefix = f"{self.name}-" if self.seed_prefix is None else self.seed_prefix
        rng = random.Random(f"{prefix}{selection.split}-{selection.seed}")
        levels = selection.levels or self.levels
        seen: set[str] = set()
        repeats = 0
        while repeats < _MOST_REPEATS and (selection.limit is None or len(seen) < selection.limit):
            level = rng.choice(levels)
            problem = self.generators[level](rng)
            if problem.text in seen or problem.held_out != (selection.split == "test"):
                repeats += 1
                continue
            repeats = 0
            seen.add(problem.text)
            yield level, problem

    def gold_completion(self, example: Example) -> str:
        """Returns a perfect answer in the requested format, after an empty think block."""
        return perfect_completion(self.solve(example), self.convention)
