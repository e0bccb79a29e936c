"""Generated arithmetic in five levels, the task of the embedded model: `What is 43 * 7?`.

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


ARITHMETIC = ProceduralTask(
    name="arithmetic",
    summary="generated sums, differences and products in five levels",
    generators={
        1: _between("+-", (0, 99), (0, 99)),
        2: _between("*", (10, 99), (2, 9)),
        3: _between("*", (100, 999), (2, 9)),
        4: _between("+-", (1000, 9999), (1000, 9999)),
        5: _between("*", (10, 99), (10, 99)),
    },
    rewards=("boxed_answer", "any_answer"),
    seed_prefix="",
)
