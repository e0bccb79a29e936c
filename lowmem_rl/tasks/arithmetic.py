"""Generated arithmetic in five levels, the task of the embedded model: `What is 43 * 7?`; and level 0 to begin with.

Level 0, sums and differences within 20, is for pretrained models that hardly add (SmolLM2-135M); it has 462 problems.
A commuted problem is in the same split: training never draws a held-out problem under any seed.
"""

import random

from lowmem_rl.tasks.procedural import GeneratedProblem, Generator, ProceduralTask


def problem_of(left: int, operator: str, right: int) -> GeneratedProblem:
    """Returns the problem `left operator right`, with integers of any size; operators are + - *."""
    text = f"{left} {operator} {right}"
    value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    first, second = (left, right) if operator == "-" else sorted((left, right))
    return GeneratedProblem(text, f"{first}{operator}{second}", f"What is {text}?", str(value))


def _between(operators: str, left: tuple[int, int], right: tuple[int, int]) -> Generator:
    def generate(rng: random.Random) -> GeneratedProblem:
        return problem_of(rng.randint(*left), rng.choice(operators), rng.randint(*right))

    return generate


def _sums_and_differences_within(most: int) -> Generator:
    """Neither the numbers nor the result are below 0 or above `most`."""

    def generate(rng: random.Random) -> GeneratedProblem:
        whole = rng.randint(0, most)
        part = rng.randint(0, whole)
        return problem_of(part, "+", whole - part) if rng.random() < 0.5 else problem_of(whole, "-", part)

    return generate


ARITHMETIC = ProceduralTask(
    name="arithmetic",
    summary="sums, differences and products in five levels, and level 0 to begin with",
    generators={
        0: _sums_and_differences_within(20),
        1: _between("+-", (0, 99), (0, 99)),
        2: _between("*", (10, 99), (2, 9)),
        3: _between("*", (100, 999), (2, 9)),
        4: _between("+-", (1000, 9999), (1000, 9999)),
        5: _between("*", (10, 99), (10, 99)),
    },
    rewards=("boxed_answer", "any_answer"),
    seed_prefix="",
    only_named=frozenset({0}),
)
