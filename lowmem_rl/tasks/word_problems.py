"""Generated word problems in four levels, for small pretrained models: `Anna has 7 apples and gets 5 more. ...`

Levels: 1, a sum or difference within 20; 2, one within 100; 3, a product of two numbers below 10; 4, a product, then a
sum or difference. Calculations are held out, in any words: a held-out sum of `arithmetic` is held out here, too.
"""

import random
from collections.abc import Callable, Mapping

from lowmem_rl.tasks.arithmetic import problem_of
from lowmem_rl.tasks.procedural import GeneratedProblem, Generator, ProceduralTask

_NAMES = ("Anna", "Ben", "Chen", "Dina", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Jana", "Kofi", "Lena")
_THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "oranges", "pencils", "shells", "stamps", "stickers")
_STORIES: Mapping[str, tuple[str, ...]] = {
    "+": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "{name} has {a} {things} and {other} has {b}. How many {things} do they have together?",
        "There are {a} {things} in one bag and {b} in another. How many {things} are there in all?",
    ),
    "-": (
        "{name} has {a} {things} and gives {b} to {other}. How many {things} are left?",
        "There are {a} {things} on a table. {name} takes {b} of them. How many {things} are left?",
        "{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have?",
    ),
    "*": (
        "{name} has {a} bags with {b} {things} in each. How many {things} does {name} have?",
        "There are {a} rows of {b} {things}. How many {things} are there in all?",
        "{name} buys {b} {things} every day for {a} days. How many {things} does {name} buy?",
    ),
    "*+": (
        "{name} has {a} bags with {b} {things} in each and gets {c} more. How many {things} does {name} have now?",
        "There are {a} rows of {b} {things} and {c} more next to them. How many {things} are there in all?",
    ),
    "*-": (
        "{name} has {a} bags with {b} {things} in each and gives {c} away. How many {things} are left?",
        "There are {a} rows of {b} {things}. {name} takes {c} of them. How many {things} are left?",
    ),
}


def _as_story(rng: random.Random, kind: str, group: str, answer: str, **numbers: int) -> GeneratedProblem:
    """Returns a calculation as a story; `group` names it whatever the story is."""
    name, other = rng.sample(_NAMES, 2)
    story = rng.choice(_STORIES[kind]).format(name=name, other=other, things=rng.choice(_THINGS), **numbers)
    return GeneratedProblem(story, group, story, answer)


def _one_step(draw: Callable[[random.Random], tuple[int, str, int]]) -> Generator:
    def generate(rng: random.Random) -> GeneratedProblem:
        a, operator, b = draw(rng)
        bare = problem_of(a, operator, b)
        return _as_story(rng, operator, bare.group, bare.answer, a=a, b=b)

    return generate


def _sum_or_difference(most: int) -> Callable[[random.Random], tuple[int, str, int]]:
    """Numbers from 2 on, and no result below 2: stories say `{a} apples`, and a change of nothing is none."""

    def draw(rng: random.Random) -> tuple[int, str, int]:
        whole = rng.randint(4, most)
        part = rng.randint(2, whole - 2)
        return (part, "+", whole - part) if rng.random() < 0.5 else (whole, "-", part)

    return draw


def _product(rng: random.Random) -> tuple[int, str, int]:
    return rng.randint(2, 9), "*", rng.randint(2, 9)


def _two_steps(rng: random.Random) -> GeneratedProblem:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    operator = rng.choice("+-")
    c = rng.randint(2, a * b - 2 if operator == "-" else 20)
    total = a * b + (c if operator == "+" else -c)
    return _as_story(rng, f"*{operator}", f"{min(a, b)}*{max(a, b)}{operator}{c}", str(total), a=a, b=b, c=c)


WORD_PROBLEMS = ProceduralTask(
    name="word_problems",
    summary="sums, differences and products as short stories",
    generators={
        1: _one_step(_sum_or_difference(20)),
        2: _one_step(_sum_or_difference(100)),
        3: _one_step(_product),
        4: _two_steps,
    },
    rewards=("boxed_answer", "any_answer"),
)
