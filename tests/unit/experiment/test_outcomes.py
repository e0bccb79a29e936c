from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.experiment.outcomes import between, outcome_of, spent, within
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.reports.run_record import EvalRecord, RunRecord
from lowmem_rl.storage.run_reader import Evaluations

NOTHING = Evaluations({}, (), {}, {}, {}, {}, ())
TRIAL = Trial("task", "a", 0)


def record(rewards: list[float], steps: int = 4, **about: Any) -> RunRecord:
    rows = tuple(
        {"step": step, "reward": reward, "step_s": 60.0, "num_tokens": 100.0 * step, "trainable_numbers": 10 * step}
        for step, reward in enumerate(rewards, 1)
    )
    found = {step: {"step": step, "pass_at_1": step / 10, "strict_pass_at_1": 0.0} for step in (0, 2, 4)}
    evaluations = tuple(
        EvalRecord(name, found[step], ({"example_id": "x", "correct": bool(step), "strict": False},))
        for name, step in (("before", 0), ("step-000002", 2), ("after", 4))
        if step <= len(rewards)
    )
    values: dict[str, Any] = {
        "path": Path("r"),
        "preset": None,
        "config": {"grpo": {"steps": steps}},
        "origins": {},
        "machine": {"commit": "abc"},
        "estimate": {},
        "peak_bytes": 5,
        "peak": {},
        "health": {"findings": [{"name": "entropy_collapse"}]},
        "metrics": rows,
        "samples": (),
        "evaluations": evaluations,
        "eval_file": NOTHING,
        "controls": {},
        "selection": None,
        "resumes": (),
        "recoveries": (),
        "has_ended": True,
        "lineage": (),
    }
    return RunRecord(**values | about)


def test_a_run_that_is_done() -> None:
    found = outcome_of(TRIAL, "done", record([0.0, 0.2, 0.4, 0.6]), [{"exit_code": 0, "machine": "m"}], "pass_at_1")
    assert (found.pass_at_1, found.reward, found.base, found.steps) == (0.4, pytest.approx(0.3), 0.0, 4)
    assert (found.minutes, found.step_s, found.trained_numbers, found.peak_bytes) == (4.0, 60.0, 40, 5)
    assert (found.findings, found.commit, found.machine, found.attempts) == (("entropy_collapse",), "abc", "m", 1)
    assert found.items == {"x": 1.0}


def test_steps_that_a_failed_run_lacks_count_as_its_first() -> None:
    found = outcome_of(TRIAL, "failed", record([0.0, 0.8]), [{"exit_code": 5}], "reward")
    assert found.reward == pytest.approx(0.2)
    assert found.pass_at_1 == 0.2  # of its last evaluation


def test_a_run_that_never_began_has_no_numbers() -> None:
    found = outcome_of(TRIAL, "failed", None, [{"exit_code": 4}], "pass_at_1")
    assert (found.status, found.exit_code, found.pass_at_1, found.reward) == ("failed", 4, None, None)


@pytest.mark.parametrize(("match", "budget", "steps"), [("steps", 3, 3), ("tokens", 250, 2), ("minutes", 2.5, 2)])
def test_runs_are_compared_within_what_all_of_them_used(match: Any, budget: float, steps: int) -> None:
    whole = record([0.0, 0.2, 0.4, 0.6])
    assert len(spent(whole, match)) == 4
    cut = within(whole, match, budget)
    assert [row["step"] for row in cut.metrics] == list(range(1, steps + 1))
    found = outcome_of(TRIAL, "done", cut, [], "pass_at_1")
    assert (found.steps, found.reward) == (steps, pytest.approx(0.1 * (steps - 1)))


@pytest.mark.parametrize(
    ("budget", "accuracy"),
    [(100.0, 0.5), (200.0, 1.0), (250.0, 1.0), (400.0, 1.0), (0.0, 0.0)],
)
def test_accuracy_is_that_at_the_end_of_the_budget(budget: float, accuracy: float) -> None:
    """One item, wrong before, right after two steps of 100 tokens and later."""
    found = outcome_of(TRIAL, "done", within(record([0.0, 0.2, 0.4, 0.6]), "tokens", budget), [], "pass_at_1")
    assert found.items == {"x": accuracy}


def test_without_items_the_results_are_interpolated() -> None:
    first, second = (
        EvalRecord("e", {"step": step, "pass_at_1": step / 10, "strict_pass_at_1": 0.0}, ()) for step in (2, 4)
    )
    found = between(first, second, 0.25, 2)
    assert found.result == pytest.approx({"step": 2, "pass_at_1": 0.25, "strict_pass_at_1": 0.0})


def test_between_evaluations_of_different_sizes_their_shared_items_count() -> None:
    few, many = (
        EvalRecord(
            "e",
            {"step": 2, "pass_at_1": 9.0},
            tuple({"example_id": name, "correct": right, "strict": False} for name in names),
        )
        for names, right in (("ab", False), ("abc", True))
    )
    found = between(few, many, 0.5, 2)
    assert found.shares("correct") == {"a": 0.5, "b": 0.5}
    assert found.result["pass_at_1"] == 0.5


@pytest.mark.parametrize(("match", "budget"), [("tokens", 400.0), ("minutes", 4.0), ("steps", 4.0)])
def test_steps_that_a_failed_run_had_budget_for_count_as_its_first(match: Any, budget: float) -> None:
    cut = within(record([0.0, 0.8], steps=9), match, budget)
    assert outcome_of(TRIAL, "failed", cut, [{"exit_code": 5}], "reward").reward == pytest.approx(0.2)


@pytest.mark.parametrize(("steps", "planned"), [(4, 4), (9, 5)])
def test_no_run_lacks_more_steps_than_it_planned(steps: int, planned: int) -> None:
    assert within(record([0.0, 0.8], steps=steps), "tokens", 500.0).planned_steps == planned


def test_a_run_that_failed_after_its_budget_counts_as_one_that_did_not() -> None:
    failed, whole = (within(record([0.0, 0.2, 0.4], steps=steps), "tokens", 200.0) for steps in (9, 3))
    assert outcome_of(TRIAL, "failed", failed, [], "reward").reward == pytest.approx(0.1)
    assert failed.metrics == whole.metrics
    assert failed.planned_steps == whole.planned_steps == 2


def test_a_run_whose_costs_are_not_recorded_is_kept() -> None:
    rows = ({"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.0})
    cut = within(record([], metrics=rows), "tokens", 100.0)
    assert outcome_of(TRIAL, "failed", cut, [], "reward").reward == pytest.approx(0.625)


def test_a_strangers_number_of_steps_takes_no_memory() -> None:
    found = outcome_of(TRIAL, "failed", record([0.5, 1.0], steps=10**15), [], "reward")
    assert found.reward == pytest.approx(0.5)
