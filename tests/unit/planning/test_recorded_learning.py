"""The recorded curves, and when they may speak for a run that has not begun."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.planning.recorded_learning import PRESET, RIGHT, ROWS, prediction, recorded_steps, step_reached

RECORD = Path(__file__).parents[3] / "benchmarks" / "records" / "demo-2026-11-20.json"
GOALS = [step / 100 for step in range(40, 95, 5)]
OURS = resolve(preset=PRESET).config


def changed(section: str, **values: Any) -> Any:
    return OURS.model_copy(update={section: getattr(OURS, section).model_copy(update=values)})


def test_the_curves_are_those_of_the_record() -> None:
    rows = [row for row in json.loads(RECORD.read_text())["rows"] if row["arm"] == "ours"]
    assert [[right / ROWS for right in run] for run in RIGHT] == [row["sampled_accuracy"] for row in rows]


def test_intervals_hold_for_a_run_that_is_left_out() -> None:
    found = []
    for goal in GOALS:
        steps = [step_reached(right, goal) or 0 for right in RIGHT]
        for number, step in enumerate(steps):
            low, high = prediction(steps[:number] + steps[number + 1 :])
            found.append(low <= step <= high)
    assert (sum(found), len(found)) == (50, 55)
    assert 0.85 <= sum(found) / len(found) <= 0.95


def test_a_run_like_the_recorded_ones_gets_an_interval_around_their_steps() -> None:
    steps = [step_reached(right, 0.6) for right in RIGHT]
    assert steps == [16, 17, 17, 16, 17]
    found = recorded_steps(OURS, 0.3, 0.6)
    assert found == pytest.approx((15.35, 17.93), abs=0.01)


def test_what_changes_no_curve_may_differ() -> None:
    assert recorded_steps(OURS.model_copy(update={"seed": 99}), 0.3, 0.6)
    assert recorded_steps(changed("memory", micro_batch=8), 0.3, 0.6)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("optimizer", {"learning_rate": 1e-3}),
        ("grpo", {"group_size": 16}),
        ("grpo", {"steps": 400}),  # its rate falls more slowly
        ("model", {"name": "Qwen/Qwen2.5-1.5B-Instruct"}),
        ("trainable", {"layers": "last:1"}),
        ("task", {"levels": (1,)}),
    ],
)
def test_another_run_gets_none(section: str, values: dict[str, Any]) -> None:
    assert recorded_steps(changed(section, **values), 0.3, 0.6) is None


def test_another_start_or_a_goal_that_not_all_reached_gets_none() -> None:
    assert recorded_steps(OURS, 0.1, 0.6) is None
    assert recorded_steps(OURS, 0.5, 0.6) is None
    assert recorded_steps(OURS, 0.3, 0.99) is None
