"""Studies whose arms get as many tokens or minutes, with runs that ended early, were killed or failed."""

import json
from pathlib import Path

import pytest

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.run_study import read_outcomes
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.experiment.verdicts import compare_arms
from lowmem_rl.storage.run_dir import RunDir, append_row
from tests.run_maker import begin, evaluate, metric_row

STUDY = """
[study]
name = "s"
seeds = [0]
baseline = "long"
metric = "METRIC"
match = "MATCH"
[arms.long]
[arms.cheap]
[arms.failed]
"""
STEPS = 8


def make(directory: StudyDir, arm: str, steps: int, cost: float, *, is_done: bool = True, seed: int = 0) -> None:
    """Leaves a run that planned eight steps of so many hundred tokens and two seconds each, and was evaluated in each
    second of them: the share of right items is the step over twenty.
    """
    run = RunDir(directory.path / Trial("task", arm, seed).place)
    begin(run, {"grpo__steps": STEPS if not is_done else steps})
    for step in range(1, steps + 1):
        append_row(run.metrics, metric_row(step, STEPS) | {"num_tokens": 100.0 * cost * step, "step_s": 2.0 * cost})
    names = {step: "after" if is_done and step == steps else f"step-{step:06d}" for step in range(2, steps + 1, 2)}
    during = [evaluate(run, name, step, step, step) for step, name in names.items()]
    found = {"before": evaluate(run, "before", 0, 0, 0), "during": during}
    if is_done:
        found |= {"during": during[:-1], "after": during[-1], "comparison": {"gain": 0.0}}
    run.evaluations.write_text(json.dumps(found))
    directory.append(Trial("task", arm, seed), exit_code=0 if is_done else 5, failed=not is_done, seconds=1.0)


def outcomes(directory: StudyDir, match: str, metric: str = "pass_at_1") -> dict[str, Outcome]:
    return {one.arm: one for one in read_outcomes(_study(match, metric), directory)}


def _study(match: str, metric: str) -> Study:
    return parse_study(STUDY.replace("MATCH", match).replace("METRIC", metric), "s")


@pytest.fixture
def directory(tmp_path: Path) -> StudyDir:
    """The baseline took eight steps, an arm eight at half the cost; a third failed after two."""
    found = StudyDir(tmp_path)
    make(found, "long", STEPS, cost=2)
    make(found, "cheap", STEPS, cost=1)
    make(found, "failed", 2, cost=1, is_done=False)
    return found


@pytest.mark.parametrize("match", ["tokens", "minutes"])
def test_a_failed_run_takes_nothing_from_the_others_and_counts_as_far_as_it_came(
    directory: StudyDir, match: str
) -> None:
    found = outcomes(directory, match)
    assert {arm: (one.status, one.steps, one.pass_at_1) for arm, one in found.items()} == {
        "long": ("done", 4, 0.2),  # as much as the cheap one used
        "cheap": ("done", 8, 0.4),
        "failed": ("failed", 2, 0.1),
    }
    verdicts = compare_arms(_study(match, "pass_at_1"), list(found.values()))
    assert [arm.num_seeds for arm in verdicts.arms] == [1, 1, 1]
    assert [one.arm for one in verdicts.failed] == ["failed"]


@pytest.mark.parametrize("match", ["tokens", "minutes"])
def test_the_steps_it_did_not_come_to_count_as_its_first(directory: StudyDir, match: str) -> None:
    found = outcomes(directory, match, "reward")
    assert found["cheap"].reward == pytest.approx(sum(range(1, 9)) / 8 / STEPS)
    assert found["long"].reward == pytest.approx(sum(range(1, 5)) / 4 / STEPS)
    assert found["failed"].reward == pytest.approx((1 + 2 + 6 * 1) / 8 / STEPS)


def test_without_a_run_that_is_done_each_counts_as_far_as_it_came(tmp_path: Path) -> None:
    directory = StudyDir(tmp_path)
    make(directory, "long", 6, cost=2, is_done=False)
    make(directory, "cheap", 2, cost=1, is_done=False)
    found = outcomes(directory, "tokens")
    assert [(one.steps, one.pass_at_1) for one in found.values()] == [(6, 0.3), (2, 0.1), (0, None)]


def test_an_arm_that_plans_fewer_steps_is_what_the_others_are_matched_to(tmp_path: Path) -> None:
    directory = StudyDir(tmp_path)
    make(directory, "long", STEPS, cost=2)
    make(directory, "cheap", 4, cost=1)
    found = outcomes(directory, "tokens")
    assert [(one.arm, one.status, one.steps) for one in found.values()][:2] == [
        ("long", "done", 2),
        ("cheap", "done", 4),
    ]


def test_an_arm_is_not_favoured_for_being_evaluated_where_the_budget_ends(tmp_path: Path) -> None:
    directory = StudyDir(tmp_path)
    make(directory, "long", STEPS, cost=1.1)
    make(directory, "cheap", STEPS, cost=1.0)  # as good in each step, and evaluated in its last
    found = outcomes(directory, "tokens")
    assert found["cheap"].pass_at_1 == 0.4
    assert found["long"].steps == 7
    assert found["long"].pass_at_1 == pytest.approx(8 / 1.1 / 20, abs=1e-3)  # 0.3 in step 6, 0.4 in step 8


def test_one_run_that_used_next_to_nothing_shortens_no_other(tmp_path: Path) -> None:
    directory, study = (
        StudyDir(tmp_path),
        parse_study(STUDY.replace("MATCH", "tokens").replace("METRIC", "pass_at_1").replace("[0]", "[0, 1, 2]"), "s"),
    )
    for seed, cost in enumerate((1.0, 1.0, 0.01)):  # the third writes nothing
        make(directory, "cheap", STEPS, cost, seed=seed)
        make(directory, "long", STEPS, cost=2, seed=seed)
    found = {(one.arm, one.seed): (one.steps, one.pass_at_1) for one in read_outcomes(study, directory)}
    assert [found["long", seed] for seed in range(3)] == [(4, 0.2)] * 3
    assert [found["cheap", seed] for seed in range(3)] == [(8, 0.4)] * 3
