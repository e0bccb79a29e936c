"""Generated arithmetic in five levels, the task of the embedded model.

A problem belongs to `test` or `train` by a hash of its operands, the commuted problem to
the same split: training can never draw a held-out problem, whatever its seed.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lowmem_rl.example import Example
from lowmem_rl.prompts import conversation, perfect_completion
from lowmem_rl.tasks.procedural import HELD_OUT, TEST_SHARE, distinct
from lowmem_rl.tasks.splits import is_held_out
from lowmem_rl.tasks.task import Selection, check_levels


@dataclass(frozen=True, slots=True)
class Sum:
    """`left operator right`, with integers of any size."""

    left: int
    operator: str
    right: int

    @property
    def text(self) -> str:
        return f"{self.left} {self.operator} {self.right}"

    @property
    def value(self) -> int:
        return {"+": self.left + self.right, "-": self.left - self.right, "*": self.left * self.right}[self.operator]

    @property
    def held_out(self) -> bool:
        """True if the problem belongs to the test split; commuted sums and products agree."""
        operands = [self.left, self.right] if self.operator == "-" else sorted([self.left, self.right])
        return is_held_out(f"{operands[0]}{self.operator}{operands[1]}", TEST_SHARE)


def _between(operators: str, left: tuple[int, int], right: tuple[int, int]) -> Callable[[random.Random], Sum]:
    return lambda rng: Sum(rng.randint(*left), rng.choice(operators), rng.randint(*right))


LEVELS: dict[int, Callable[[random.Random], Sum]] = {
    1: _between("+-", (0, 99), (0, 99)),
    2: _between("*", (10, 99), (2, 9)),
    3: _between("*", (100, 999), (2, 9)),
    4: _between("+-", (1000, 9999), (1000, 9999)),
    5: _between("*", (10, 99), (10, 99)),
}


class Arithmetic:
    """`What is 43 * 7?`: sums, differences and products of growing size."""

    name = "arithmetic"
    summary = "generated sums, differences and products in five levels"
    has_data = False
    held_out = HELD_OUT
    levels = tuple(LEVELS)
    rewards = ("boxed_answer", "any_answer")

    def __init__(self, convention: str = "think_boxed") -> None:
        self.convention = convention

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields distinct problems of the split, levels drawn evenly; raises `TaskError` for unknown levels."""
        check_levels(self.name, LEVELS, selection.levels)
        rng = random.Random(f"{selection.split}-{selection.seed}")
        for level, problem in distinct(LEVELS, rng, selection):
            yield Example(
                id=f"arithmetic/{problem.text}",
                prompt=conversation(f"What is {problem.text}?", self.convention),
                answer=str(problem.value),
                level=level,
            )

    def gold_completion(self, example: Example) -> str:
        """Returns the answer in its box, behind an empty think block."""
        return perfect_completion(example.answer, self.convention)
