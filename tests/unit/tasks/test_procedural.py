"""Tasks that make their problems: each answer proven by other means than those that made it."""

import random
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.expressions import compute, parse
from lowmem_rl.tasks.countdown import COUNTDOWN, gold_expression, solve
from lowmem_rl.tasks.linear_algebra import (
    MATRIX_INVERSE,
    RREF,
    Matrix,
    identity,
    inverse,
    product,
    row_echelon,
    text_of,
)
from lowmem_rl.tasks.procedural import ProceduralTask
from lowmem_rl.tasks.program_synthesis import PROGRAM_SYNTHESIS, expression
from lowmem_rl.tasks.splits import is_held_out, place_of
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.word_problems import WORD_PROBLEMS

TASKS = [COUNTDOWN, MATRIX_INVERSE, RREF, PROGRAM_SYNTHESIS, WORD_PROBLEMS]

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def draw(task: ProceduralTask, split: Split = "train", limit: int = 300, seed: int = 0, **kwargs) -> list[Example]:
    return list(islice(task.examples(Selection(split, limit, seed=seed, **kwargs)), limit))


def matrix_in(text: str) -> Matrix:
    rows = text[text.index("[[") + 2 : text.rindex("]]")].split("], [")
    return tuple(tuple(map(Fraction, row.split(", "))) for row in rows)


@every_task
def test_a_seed_draws_the_same_distinct_problems_and_another_seed_others(task: ProceduralTask) -> None:
    drawn = draw(task)
    assert drawn == draw(task)
    assert drawn[:50] == draw(task, limit=50)
    assert drawn != draw(task, seed=1)
    assert len({example.question for example in drawn}) == len({example.id for example in drawn}) == 300


@pytest.mark.slow
@every_task
def test_training_never_draws_a_held_out_problem_under_any_seed(task: ProceduralTask) -> None:
    trained = {example.question for seed in range(3) for example in draw(task, seed=seed)}
    held_out = {example.question for seed in range(3) for example in draw(task, "test", seed=seed)}
    assert not trained & held_out


@every_task
def test_levels_are_drawn_evenly_and_unknown_ones_refused(task: ProceduralTask) -> None:
    levels = [example.level for example in draw(task)]
    assert set(levels) == set(task.levels)
    assert min(map(levels.count, task.levels)) > 300 / len(task.levels) / 2
    assert {example.level for example in draw(task, levels=(task.levels[0],))} == {task.levels[0]}
    with pytest.raises(TaskError, match="no level 99"):
        draw(task, levels=(99,))


def test_a_solution_of_a_countdown_uses_each_number_once_and_reaches_the_target() -> None:
    for example in draw(COUNTDOWN):
        tree = parse(gold_expression(example))
        assert compute(tree) == example.extra["target"] == int(example.answer)
        used = sorted(
            int(number)
            for number in gold_expression(example).replace("(", " ").replace(")", " ").split()
            if number.isdigit()
        )
        assert used == sorted(example.extra["numbers"])
        assert len(used) == example.level


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3), st.integers(1, 60))
def test_the_search_is_complete_for_sums(numbers: list[int], target: int) -> None:
    found = solve(numbers, target)
    assert found is None or compute(parse(found)) == target
    assert solve(numbers, sum(numbers)) is not None


def test_a_countdown_without_solution_is_an_error_of_the_data() -> None:
    assert solve((1, 1), 5) is None
    assert solve((8, 3, 8, 3), 24) is not None  # 8 / (3 - 8 / 3)
    with pytest.raises(TaskError, match="never make 5"):
        gold_expression(Example("x", (), "5", extra={"numbers": (1, 1), "target": 5}))


def test_the_order_of_the_numbers_changes_nothing_about_the_split() -> None:
    held_out = {(tuple(sorted(e.extra["numbers"])), e.answer) for e in draw(COUNTDOWN, "test", levels=(2,))}
    trained = {(tuple(sorted(e.extra["numbers"])), e.answer) for e in draw(COUNTDOWN, levels=(2,))}
    assert not held_out & trained


def test_an_inverse_times_its_matrix_is_one() -> None:
    for example in draw(MATRIX_INVERSE):
        matrix, solution = matrix_in(example.question.partition("A = ")[2]), matrix_in(example.answer)
        assert product(matrix, solution) == product(solution, matrix) == identity(len(matrix))
        assert example.level not in (1, 3) or "/" not in example.answer


def test_a_reduced_form_has_leading_ones_alone_in_their_columns_and_the_same_row_space() -> None:
    for example in draw(RREF):
        matrix, solution = matrix_in(example.question.partition("A = ")[2]), matrix_in(example.answer)
        leads = [next((c for c, entry in enumerate(row) if entry), None) for row in solution]
        ranked = [lead for lead in leads if lead is not None]
        assert leads == ranked + [None] * (len(leads) - len(ranked))
        assert ranked == sorted(set(ranked))
        for row, lead in enumerate(ranked):
            assert [line[lead] for line in solution] == [Fraction(row == other) for other in range(len(solution))]
        # A row of the matrix is the sum of reduced rows, weighted by its own entries at their leads.
        for line in matrix:
            weighted = [sum(line[lead] * solution[r][c] for r, lead in enumerate(ranked)) for c in range(len(line))]
            assert list(line) == weighted


def test_a_singular_matrix_has_no_inverse() -> None:
    assert inverse(((Fraction(1), Fraction(2)), (Fraction(2), Fraction(4)))) is None
    half = ((Fraction(1, 2), Fraction(0)), (Fraction(0), Fraction(-3)))
    assert text_of(half) == "[[1/2, 0], [0, -3]]"
    assert row_echelon(half) == identity(2)


def test_a_formula_gives_every_value_that_is_shown_and_every_one_that_is_not() -> None:
    for example in draw(PROGRAM_SYNTHESIS):
        tree = parse(example.answer)
        points, unseen = example.extra["points"], example.extra["unseen"]
        assert all(compute(tree, {"n": Fraction(n)}) == value for n, value in [*points, *unseen])
        assert all(f"f({n}) = {value}" in example.question for n, value in points)
        assert {n for n, _ in points}.isdisjoint({n for n, _ in unseen})


def test_a_formula_is_written_as_one_writes_it() -> None:
    assert expression([(-3, "n^2"), (1, "n"), (-1, "")]) == "-3*n^2 + n - 1"
    assert expression([(1, "n"), (0, "")]) == "n"
    assert expression([(-1, "2^n"), (4, "")]) == "-2^n + 4"


def test_a_share_is_held_out_and_spaces_and_capitals_do_not_matter() -> None:
    texts = [f"question {n}" for n in range(10_000)]
    assert 450 < sum(is_held_out(text, 0.05) for text in texts) < 550
    assert place_of("What is\n 2 + 2?") == place_of("what IS 2 + 2?  ")
    assert all(0 <= place_of(text) < 1 for text in random.Random(0).sample(texts, 100))
