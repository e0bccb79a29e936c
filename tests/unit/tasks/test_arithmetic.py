"""The generated task: levels, splits, determinism."""

from itertools import islice

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import ConfigError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.arithmetic import ARITHMETIC, problem_of
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.task_registry import load_task


def draw(split: Split, limit: int | None = 2000, levels: tuple[int, ...] = (), seed: int = 0) -> list[Example]:
    return list(ARITHMETIC.examples(Selection(split, limit, levels, seed)))


def unordered(example: Example) -> tuple[str, ...]:
    left, operator, right = example.question.removeprefix("What is ").removesuffix("?").split()
    return (operator, left, right) if operator == "-" else (operator, *sorted([left, right]))


def test_train_never_draws_a_held_out_problem_under_any_seed() -> None:
    held_out = {unordered(example) for seed in range(3) for example in draw("test", seed=seed)}
    trained = {unordered(example) for seed in range(3) for example in draw("train", seed=seed)}
    assert not held_out & trained


def test_a_commuted_problem_is_in_the_same_split() -> None:
    pairs = [(a, b) for a in range(60) for b in range(60)]
    assert all(problem_of(a, op, b).held_out == problem_of(b, op, a).held_out for op in "+*" for a, b in pairs)


def test_about_a_fifth_of_the_problems_is_held_out() -> None:
    held_out = [problem_of(a, "-", b).held_out for a in range(100) for b in range(100)]
    assert 0.18 < sum(held_out) / len(held_out) < 0.22


def test_the_same_seed_draws_the_same_problems_and_another_draws_others() -> None:
    assert draw("train", 50) == draw("train", 50)
    assert draw("train", 50) == draw("train", 100)[:50]
    assert draw("train", 50) != draw("train", 50, seed=1)


def test_no_problem_is_drawn_twice() -> None:
    ids = [example.id for example in draw("train")]
    assert len(set(ids)) == len(ids) == 2000


def test_a_small_level_ends_by_itself() -> None:
    assert 500 < len(draw("train", limit=None, levels=(2,))) <= 90 * 8


def test_levels_are_drawn_evenly_and_only_those_asked_for() -> None:
    drawn = [example.level for example in draw("train", levels=(1, 5))]
    assert set(drawn) == {1, 5}
    assert 800 < drawn.count(1) < 1200
    assert {example.level for example in draw("test")} == set(ARITHMETIC.levels)


def test_level_0_stays_within_20_and_is_drawn_only_if_it_is_named() -> None:
    drawn = [example for split in ("train", "test") for example in draw(split, limit=None, levels=(0,))]
    assert len({example.id for example in drawn}) == len(drawn) == 2 * sum(range(1, 22))
    numbers = [int(text) for example in drawn for text in (*unordered(example)[1:], example.answer)]
    assert set(numbers) == set(range(21))
    assert 0 not in {example.level for example in draw("train")}


def test_the_answer_is_the_value_of_the_question() -> None:
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for example in draw("train", 500):
        left, operator, right = example.id.removeprefix("arithmetic/").split()
        assert example.answer == str(apply[operator](int(left), int(right)))


def test_every_gold_completion_pays_in_full() -> None:
    task, rewards = ARITHMETIC, load_reward_set({"boxed_answer": 1.0, "any_answer": 1.0, "think_format": 1.0})
    for example in islice(task.examples(Selection("test")), 500):
        assert rewards.score(task.gold_completion(example), example).reward == 3


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(TaskError, match="no level 9") as caught:
        draw("train", levels=(1, 9))
    assert "0, 1, 2, 3, 4, 5" in caught.value.hint


def test_a_path_for_a_task_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.path"):
        load_task(TaskConfig(name="arithmetic", path="data"))
