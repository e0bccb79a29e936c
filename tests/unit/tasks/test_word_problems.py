"""Sums and products as stories: numbers, answers, and what is held out."""

import re
from itertools import islice

import pytest

from lowmem_rl.example import Example
from lowmem_rl.tasks.arithmetic import ARITHMETIC
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.word_problems import WORD_PROBLEMS


def draw(split: Split, level: int, limit: int = 1000) -> list[Example]:
    return list(islice(WORD_PROBLEMS.examples(Selection(split, limit, (level,))), limit))


def numbers_in(example: Example) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", example.question)]


@pytest.mark.parametrize("level", WORD_PROBLEMS.levels)
def test_the_answer_is_reached_from_the_numbers_of_the_story(level: int) -> None:
    for example in draw("train", int(level), 300):
        numbers, value = numbers_in(example), int(example.answer)
        first, second = numbers[:2]
        product = first * second
        allowed = {1: {first + second, first - second}, 2: {first + second, first - second}, 3: {product}}
        assert value in (allowed.get(int(level)) or {product + numbers[2], product - numbers[2]})
        assert value >= 2


@pytest.mark.parametrize(("level", "most"), [(1, 20), (2, 100)])
def test_sums_and_differences_stay_within_their_bounds(level: int, most: int) -> None:
    seen = [number for example in draw("train", level) for number in (*numbers_in(example), int(example.answer))]
    assert 2 <= min(seen) <= 4
    assert most - 4 <= max(seen) <= most


def test_words_say_which_operation_it_is() -> None:
    asked_for = {"together": 1, "in all": 1, "have now": 1, "are left": -1, "How many more": -1}
    for example in draw("train", 1):
        first, second = numbers_in(example)
        sign = next(sign for words, sign in asked_for.items() if words in example.question)
        assert int(example.answer) == first + sign * second


def test_a_held_out_calculation_is_held_out_in_every_wording_and_in_arithmetic() -> None:
    """A sum that training tells or asks is in no held-out story."""

    def calculations(examples: list[Example]) -> set[tuple[int, ...]]:
        return {(int(example.answer), *sorted(numbers_in(example))) for example in examples}

    held_out = calculations(draw("test", 1))
    bare = list(ARITHMETIC.examples(Selection("train", None, (0,))))
    assert len(held_out) > 20
    assert not held_out & calculations(draw("train", 1, 5000))
    assert not held_out & calculations(bare)
