"""Program synthesis on integer sequences: infer f from its first values, and give it as an expression in n.

The answer is checked by its values: `extra` holds the `points` that the question shows and `unseen` ones, pairs
(n, f(n)), and an expression in any form is right if it matches all of them.
"""

import random

from lowmem_rl.tasks.procedural import GeneratedProblem, Generator, ProceduralTask

_NUM_SHOWN = 6
_UNSEEN = (7, 8, 10, 13)
"""Arguments at which an expression is checked: a table of the shown values fails there."""

_Term = tuple[int, str]
"""A coefficient and its factor, "" for none."""


def expression(terms: list[_Term]) -> str:
    """Returns a sum in usual notation: `-3*n^2 + n - 1`."""
    signed = [f"{'-' if size < 0 else '+'} {_term_text(abs(size), factor)}" for size, factor in terms if size]
    text = " ".join(signed).removeprefix("+ ")
    return f"-{text[2:]}" if text.startswith("- ") else text


def _term_text(size: int, factor: str) -> str:
    if not factor:
        return str(size)
    return factor if size == 1 else f"{size}*{factor}"


def _value(terms: list[_Term], n: int) -> int:
    powers = {"": 1, "n": n, "n^2": n**2, "n^3": n**3, "2^n": 2**n, "3^n": 3**n, "(-1)^n": (-1) ** n}
    return sum(coefficient * powers[factor] for coefficient, factor in terms)


def _sequences(*parts: tuple[str, int]) -> Generator:
    """Returns a generator of sums of these factors, each with a coefficient up to a size; the first is never 0."""

    def generate(rng: random.Random) -> GeneratedProblem:
        terms = [(rng.randint(-largest, largest), factor) for factor, largest in parts]
        terms[0] = (terms[0][0] or 1, terms[0][1])
        points, unseen = (
            tuple((n, _value(terms, n)) for n in arguments) for arguments in (range(1, _NUM_SHOWN + 1), _UNSEEN)
        )
        values = ", ".join(f"f({n}) = {value}" for n, value in points)
        question = f"A function of the positive integers begins with {values}. Give f(n) as an expression in n."
        text = expression(terms)
        return GeneratedProblem(text, values, question, text, {"points": points, "unseen": unseen})

    return generate


PROGRAM_SYNTHESIS = ProceduralTask(
    name="program_synthesis",
    summary="a formula for an integer sequence from its first six values",
    generators={
        1: _sequences(("n", 9), ("", 9)),
        2: _sequences(("n^2", 5), ("n", 9), ("", 9)),
        3: _sequences(("(-1)^n", 9), ("n", 9), ("", 9)),
        4: _sequences(("2^n", 5), ("n", 9), ("", 9)),
        5: _sequences(("n^3", 3), ("n^2", 5), ("n", 9), ("", 9)),
    },
    rewards=("program_synthesis",),
)
