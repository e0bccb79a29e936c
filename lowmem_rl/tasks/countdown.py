"""Countdown: reach a target with given numbers, each used once, by + - * / (the Countdown game; TinyZero).

An answer is any expression with the target's value: `Example.answer` is the target, `extra` holds `numbers` and
`target` for the checker, and a perfect completion is found by search.

The hub's set is `nums`, `target`, without a test split: a twentieth is held out by a hash of both. TinyZero's files for
verl hold them in `reward_model`.
"""

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.known_columns import first_of
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.procedural import GeneratedProblem, ProceduralTask
from lowmem_rl.tasks.source_row import SourceRow

_LARGEST_NUMBER = 99
_LARGEST_TARGET = 99
_MOST_NUMBERS = 6
"""In one problem: a search over 6 numbers takes seconds, over 7 minutes."""
_NUMBERS = ("nums", "numbers", "reward_model.ground_truth.numbers", "ground_truth.numbers")
_TARGETS = ("target", "reward_model.ground_truth.target", "ground_truth.target")
"""Columns of the hub's set, and those of TinyZero's files for verl."""

_Term = tuple[Fraction, str]


def solve(numbers: Sequence[int], target: int) -> str | None:
    """Returns an expression of all numbers that equals the target, None if there is none."""
    return _search([(Fraction(number), str(number)) for number in numbers], Fraction(target))


def _search(terms: list[_Term], target: Fraction) -> str | None:
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


def _joined(left: _Term, right: _Term) -> Iterator[_Term]:
    """Yields the results of each operation on two terms."""
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
    """Returns an expression that solves an example. Raises `TaskError` if there is none."""
    numbers, target = example.extra["numbers"], example.extra["target"]
    expression = solve(numbers, target)
    if expression is None:
        raise TaskError(
            f"Countdown example {example.id!r} has no solution: {list(numbers)} never make {target}.",
            hint="Leave the row out.",
        )
    return expression


def _generate(rng: random.Random, count: int) -> GeneratedProblem:
    """Draws numbers until random operations in their order make a valid target: a solution is sure to exist."""
    while True:
        numbers = tuple(rng.randint(1, _LARGEST_NUMBER) for _ in range(count))
        value = Fraction(numbers[0])
        for number in numbers[1:]:
            value = rng.choice([value + number, value - number, value * number, value / number])
        if value.denominator == 1 and 1 <= value <= _LARGEST_TARGET:
            break
    problem = _problem(tuple(rng.sample(numbers, count)), int(value))
    text = f"{' '.join(map(str, problem.extra['numbers']))} = {value}"
    return GeneratedProblem(text, problem.group, problem.question, problem.answer, problem.extra)


def _problem(numbers: tuple[int, ...], target: int) -> Problem:
    """Returns TinyZero's question; all numbers must be used, which its own wording leaves open.

    Problems that show the same numbers in another order share their group.
    """
    question = (
        f"Using the numbers {list(numbers)}, create an equation that equals {target}. "
        "You can use basic arithmetic operations (+, -, *, /) and each number must be used exactly once."
    )
    group = f"{' '.join(map(str, sorted(numbers)))} = {target}"
    extra = {"numbers": numbers, "target": target}
    return Problem(question, str(target), level=len(numbers), extra=extra, group=group)


def _read_row(row: SourceRow) -> Problem:
    """Returns a row's problem. Raises `TaskError` for an unusable row."""
    column, goal = (first_of(row, names) or names[0] for names in (_NUMBERS, _TARGETS))
    numbers, target = tuple(row.items(column, int)), row.integer(goal)
    if len(numbers) > _MOST_NUMBERS:
        raise row.unusable(
            f"column {column!r} holds {len(numbers)} numbers", f"At most {_MOST_NUMBERS} can be searched."
        )
    return _problem(numbers, target)


COUNTDOWN = ProceduralTask(
    name="countdown",
    summary="reach a target with two to four numbers, each used once",
    generators={count: partial(_generate, count=count) for count in (2, 3, 4)},
    rewards=("countdown",),
    solve=gold_expression,
    convention="countdown",
)

COUNTDOWN_HUB = DataSet(
    name="countdown_hub",
    summary="reach a target with three or four numbers, TinyZero's 490,000 problems",
    data=HubData("Jiayi-Pan/Countdown-Tasks-3to4", test=None, columns=("nums", "target")),
    read=_read_row,
    levels=(3, 4),
    rewards=("countdown",),
    solve=gold_expression,
    convention="countdown",
)
