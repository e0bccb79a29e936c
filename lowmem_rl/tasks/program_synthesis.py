"""Program synthesis on integer sequences: infer f from its first values, and give it as an expression in n.

The answer is judged by what it does: `extra` holds the `points` that the question shows and `unseen` ones, pairs
(n, f(n)), and an expression is right where it meets all of them, however it is written.
"""

import random
from collections.abc import Callable

from lowmem_rl.tasks.procedural import GeneratedProblem, ProceduralTask

NUM_SHOWN = 6
UNSEEN = (7, 8, 10, 13)
"""Arguments on which an expression is checked: a table of the shown values fails there."""

Term = tuple[int, str]
"""A coefficient and what it stands before, "" for nothing."""


def expression(terms: list[Term]) -> str:
    """Returns a sum as one writes it: `-3*n^2 + n - 1`."""
    signed = [f"{'-' if size < 0 else '+'} {_part(abs(size), what)}" for size, what in terms if size]
    text = " ".join(signed).removeprefix("+ ")
    return f"-{text[2:]}" if text.startswith("- ") else text


def _part(size: int, what: str) -> str:
    if not what:
        return str(size)
    return what if size == 1 else f"{size}*{what}"


def _value(terms: list[Term], n: int) -> int:
    powers = {"": 1, "n": n, "n^2": n**2, "n^3": n**3, "2^n": 2**n, "3^n": 3**n, "(-1)^n": (-1) ** n}
    return sum(coefficient * powers[what] for coefficient, what in terms)


def _sequences(*parts: tuple[str, int]) -> Callable[[random.Random], GeneratedProblem]:
    """Returns a maker of sums of these parts, each with a coefficient up to a size; the first is never 0."""

    def make(rng: random.Random) -> GeneratedProblem:
        terms = [(rng.randint(-largest, largest), what) for what, largest in parts]
        lead, what = terms[0]
        return _puzzle([(lead or 1, what), *terms[1:]])

    return make


def _puzzle(terms: list[Term]) -> GeneratedProblem:
    text = expression(terms)
    points = tuple((n, _value(terms, n)) for n in range(1, NUM_SHOWN + 1))
    values = ", ".join(f"f({n}) = {value}" for n, value in points)
    question = f"A function of the positive integers begins with {values}. Give f(n) as an expression in n."
    unseen = tuple((n, _value(terms, n)) for n in UNSEEN)
    return GeneratedProblem(text, values, question, text, {"points": points, "unseen": unseen})


PROGRAM_SYNTHESIS = ProceduralTask(
    name="program_synthesis",
    summary="a formula for an integer sequence from its first six values",
    makers={
        1: _sequences(("n", 9), ("", 9)),
        2: _sequences(("n^2", 5), ("n", 9), ("", 9)),
        3: _sequences(("(-1)^n", 9), ("n", 9), ("", 9)),
        4: _sequences(("2^n", 5), ("n", 9), ("", 9)),
        5: _sequences(("n^3", 3), ("n^2", 5), ("n", 9), ("", 9)),
    },
    rewards=("program_synthesis",),
)
