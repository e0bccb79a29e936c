"""What every task promises."""

from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.example import Example
from lowmem_rl.prompts import CONVENTIONS
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward_set
from lowmem_rl.tasks.lengths import estimate_tokens
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.task_check import CheckLimits, check_task
from lowmem_rl.tasks.task_registry import TASKS, load_task, load_task_class

DATA = Path(__file__).parents[1] / "data"
RELIED_ON = {
    *("arithmetic", "gsm8k", "math", "math500", "rlvr_gsm", "rlvr_math", "countdown", "matrix_inverse", "rref"),
    "word_problems",
    *("program_synthesis", "hellaswag", "open_thoughts"),
}

every_task = pytest.mark.parametrize("name", TASKS)


def settings_of(name: str) -> dict[str, Any]:
    """Returns the path of the small copy of a task's data in these tests."""
    if not load_task_class(name).has_data:
        return {}
    if name == "table":
        return {"path": str(DATA / "table" / "problems.csv"), "columns": ["problem", "solution", "grade"]}
    return {"path": str(DATA / name.removesuffix("_free"))}


def task_of(name: str) -> Any:
    convention = getattr(load_task_class(name), "convention", "think_boxed")
    return load_task(TaskConfig(name=name, prompt=convention, **settings_of(name)))


def examples_of(name: str, split: Split, limit: int = 60) -> list[Example]:
    return list(task_of(name).examples(Selection(split, limit)))


def test_the_names_that_others_rely_on_are_there() -> None:
    assert set(TASKS) >= RELIED_ON
    assert list(TASKS) == sorted(TASKS)


@every_task
def test_it_says_what_it_is_and_names_rewards_and_a_convention_that_exist(name: str) -> None:
    maker: Any = load_task_class(name)
    assert task_of(name).name == name
    assert 0 < len(maker.summary) <= 80
    assert maker.rewards
    assert set(maker.rewards) <= set(REWARDS)
    assert task_of(name).convention in CONVENTIONS


@every_task
def test_it_passes_its_own_check(name: str) -> None:
    rewards = load_reward_set(dict.fromkeys(task_of(name).rewards, 1.0))
    report = check_task(task_of(name), rewards, CheckLimits(60), estimate_tokens)
    assert report.findings == ()
    assert set(report.levels) <= set(getattr(load_task_class(name), "levels", ())) or name == "table"


@every_task
def test_its_order_is_fixed_and_its_ids_are_its_own(name: str) -> None:
    train, test = examples_of(name, "train"), examples_of(name, "test")
    assert train == examples_of(name, "train")
    assert test == examples_of(name, "test")
    assert len({example.id for example in [*train, *test]}) == len(train) + len(test)


@every_task
def test_a_limit_takes_the_first_of_the_same_order(name: str) -> None:
    assert examples_of(name, "train", 3) == examples_of(name, "train")[:3]


@every_task
def test_any_convention_changes_the_prompt_alone(name: str) -> None:
    asked = {}
    for convention in CONVENTIONS:
        task = load_task(TaskConfig(name=name, prompt=convention, **settings_of(name)))
        examples = list(task.examples(Selection("train", 5)))
        system = [turn["content"] for turn in examples[0].prompt if turn["role"] == "system"]
        assert system == [CONVENTIONS[convention]] * (convention != "bare")
        asked[convention] = [(example.question, example.answer) for example in examples]
    assert len({str(value) for value in asked.values()}) == 1
