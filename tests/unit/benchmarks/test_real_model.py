"""The proof on a pretrained model: what a record says of an arm, what a run is, and what is not run again."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.number_form import pay
from benchmarks.real_model import ARMS, CONTROLS, SETTINGS, TASKS, Record, Trial, run_all, summaries, table
from lowmem_rl.config.compose import resolve
from lowmem_rl.example import Example


def row(arm: str, seed: int, gain: float, low: float) -> dict[str, Any]:
    return {
        "key": Trial(arm, seed, 60, 0).key,
        "arm": arm,
        "seed": seed,
        "steps": 60,
        "task": "arithmetic",
        "level": 0,
        "pass_at_1": {"before": 0.1, "after": 0.1 + gain},
        "paired": {"gain": gain, "interval": {"low": low, "high": 1.0}},
        "sampled_tokens": 100,
        "seconds": 300.0,
    }


@pytest.mark.parametrize(
    ("gains", "lows", "learns"),
    [((0.5, 0.4), (0.2, 0.1), True), ((0.5, 0.39), (0.2, 0.1), False), ((0.5, 0.4), (0.2, -0.01), False)],
)
def test_an_arm_learns_if_every_seed_gains_enough_and_more_than_chance(gains, lows, learns: bool) -> None:
    rows = [row("answer", seed, gain, low) for seed, (gain, low) in enumerate(zip(gains, lows, strict=True))]
    (found,) = summaries(rows)
    assert found["learns"] == learns
    assert (found["seeds"], found["lowest_gain"], found["longest_minutes"]) == ([0, 1], min(gains), 5.0)
    assert table([found]).splitlines()[1].endswith("  learns" if learns else "does not learn")


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_a_valid_run_of_level_0_in_4_bit(arm: str, tmp_path: Path) -> None:
    command = Trial(arm, 3, 60, 0).command("tiny", tmp_path)
    settings = [text.removeprefix("--set=") for text in command if text.startswith("--set=")]
    config = resolve(preset="tiny-cpu", settings=settings).config
    assert (config.model.bits, config.task.levels, config.grpo.prompts_per_step) == (4, (0,), 8)
    assert {"--seed=3", "--steps=60", "--model=tiny"} <= set(command)
    assert sum(text.startswith("--reward=") for text in command) == 1


def test_a_harder_task_begins_from_a_run_and_counts_separately(tmp_path: Path) -> None:
    first = Trial("answer", 0, 60, 0)
    then = Trial("answer", 0, 60, 1, "word_problems", tmp_path / "first")
    assert f"--from={tmp_path / 'first'}" in then.command("tiny", tmp_path)
    assert "--set=task.name=word_problems" in then.command("tiny", tmp_path)
    assert then.key != first.key
    rows = [row("answer", 0, 0.5, 0.2), row("answer", 0, 0.2, 0.1) | {"task": "word_problems", "level": 1}]
    assert [found["learns"] for found in summaries(rows)] == [True, True]  # each by the target of its task


def test_runs_of_the_record_are_not_repeated(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.json", "no such model")
    for arm in ARMS:
        record.add(row(arm, 0, 0.1, 0.0))
    again = Record(tmp_path / "record.json", "no such model")
    run_all([Trial(arm, 0, 60, 0) for arm in ARMS], again, jobs=1)  # with a run this would raise
    assert set(again.rows) == set(record.rows)


def test_the_form_is_paid_right_or_wrong() -> None:
    example = Example("x", ({"role": "user", "content": "What is 3 + 4?"},), "7")
    assert [pay(text, example) for text in ("3 + 4 = 7", "8.", "-2\n", "7 apples", "", "It's 7!")] == [1, 1, 1, 0, 0, 0]
    assert set(CONTROLS) < set(ARMS)


def test_the_preset_for_a_cpu_has_the_settings_of_the_record() -> None:
    settings = [*SETTINGS, *TASKS["arithmetic"], "task.levels=[0]", "task.prompt=bare", "grpo.steps=60"]
    rewards = ["rewards.any_answer=1.0", "rewards.boxed_answer=0.0", "rewards.think_format=0.0"]
    recorded = resolve(preset="tiny-cpu", settings=["model.name=x", *settings, *rewards]).config
    assert resolve(preset="smollm2-cpu", settings=["model.name=x"]).config == recorded
