"""Countdown: reach a target with given numbers, each used once, by + - * / (the Countdown game; TinyZero).

An answer is any expression that comes to the target: `Example.answer` is the target, `extra` holds `numbers`
and `target` for the checker, and a perfect completion is found by search.

The hub's set is `nums`, `target`, without a test split: a twentieth is held out by a hash of both.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.procedural import GeneratedProblem, ProceduralTask
from lowmem_rl.tasks.source_row import SourceRow

LARGEST_NUMBER = 99
LARGEST_TARGET = 99
MOST_NUMBERS = 6
"""Of one problem: 6 numbers are searched in seconds, 7 in minutes."""


def question_of(numbers: Sequence[int], target: int) -> str:
    """Returns TinyZero's question; all numbers must be used, which its own wording leaves open."""
    return (
        f"Using the numbers {list(numbers)}, create an equation that equals {target}. "
        "You can use basic arithmetic operations (+, -, *, /) and each number must be used exactly once."
    )


def solve(numbers: Sequence[int], target: int) -> str | None:
    """Returns an expression of all numbers that equals the target, or None where there is none."""
    return _search([(Fraction(number), str(number)) for number in numbers], Fraction(target))


Term = tuple[Fraction, str]


def _search(terms: list[Term], target: Fraction) -> str | None:
    if len(terms) == 1:
        value, text = terms[0]
        return text.removeprefix("(").removesuffix(")") if value == target else None
    for i, left in enumerate(terms):
        for j in range(i + 1, len(terms)):
            rest = [term for k, term in enumerate(terms) if k not in (i, j)]
            for joined in _joined(left, terms[j]):
                if found := _search([*rest, joined], target):
                    return found
    return None


def _joined(left: Term, right: Term) -> Iterator[Term]:
    """Yields all that one operation makes of two terms."""
    (a, x), (b, y) = left, right
    yield a + b, f"({x} + {y})"
    yield a * b, f"({x} * {y})"
    yield a - b, f"({x} - {y})"
    yield b - a, f"({y} - {x})"
    if b:
        yield a / b, f"({x} / {y})"
    if a:
        yield b / a, f"({y} / {x})"


def gold_expression(example: Example) -> str:
    """Returns an expression that solves an example. Raises `TaskError` where there is none."""
    numbers, target = example.extra["numbers"], example.extra["target"]
    expression = solve(numbers, target)
    if expression is None:
        raise TaskError(
            f"Countdown example {example.id!r} has no solution: {list(numbers)} never make {target}.",
            hint="Leave the row out.",
        )
    return expression


def _of_size(count: int) -> Callable[[random.Random], GeneratedProblem]:
    return lambda rng: _puzzle(rng, count)


def _puzzle(rng: random.Random, count: int) -> GeneratedProblem:
    """Draws numbers until an operation after another makes a target of them: a solution is sure to exist."""
    while True:
        numbers = tuple(rng.randint(1, LARGEST_NUMBER) for _ in range(count))
        value = Fraction(numbers[0])
        for number in numbers[1:]:
            value = rng.choice([value + number, value - number, value * number, value / number])
        if value.denominator == 1 and 1 <= value <= LARGEST_TARGET:
            break
    shown = tuple(rng.sample(numbers, count))
    return GeneratedProblem(
        text=f"{' '.join(map(str, shown))} = {value}",
        group=_group(shown, int(value)),
        question=question_of(shown, int(value)),
        answer=str(value),
        extra={"numbers": shown, "target": int(value)},
    )


def _group(numbers: Sequence[int], target: int) -> str:
    """Returns what a problem shares with those that show the same numbers in another order."""
    return f"{' '.join(map(str, sorted(numbers)))} = {target}"


def read_row(row: SourceRow) -> Problem:
    """Returns a row's problem. Raises `TaskError`."""
    numbers, target = tuple(row.items("nums", int)), row.integer("target")
    if len(numbers) > MOST_NUMBERS:
        raise row.unusable(f"column 'nums' holds {len(numbers)} numbers", f"At most {MOST_NUMBERS} can be searched.")
    extra = {"numbers": numbers, "target": target}
    question = question_of(numbers, target)
    return Problem(question, str(target), level=len(numbers), extra=extra, group=_group(numbers, target))


COUNTDOWN = ProceduralTask(
    name="countdown",
    summary="reach a target with two to four numbers, each used once",
    makers={count: _of_size(count) for count in (2, 3, 4)},
    rewards=("countdown",),
    solve=gold_expression,
    convention="countdown",
)

COUNTDOWN_HUB = DataSet(
    name="countdown_hub",
    summary="reach a target with three or four numbers, TinyZero's 490,000 problems",
    data=HubData("Jiayi-Pan/Countdown-Tasks-3to4", test=None, columns=("nums", "target")),
    read=read_row,
    levels=(3, 4),
    rewards=("countdown",),
    solve=gold_expression,
    convention="countdown",
)
