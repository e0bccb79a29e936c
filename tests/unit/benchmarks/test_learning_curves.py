"""The learning curves: nothing is left out, and their intervals are honest."""

import json
import random
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.learning_curves import CURVES, curves_of, interval
from lowmem_rl.rewards.reward_registry import REWARDS
from lowmem_rl.stats import wilson

RECORDS = sorted((Path(__file__).parents[3] / "benchmarks" / "records").glob("learning-curves-*.json"))


FAMILIES = {curve.family for curve in CURVES}

NOT_LEARNT = {"countdown"}
"""Of 250 answers that its base samples, 81 are workings, and three in four of those copy a number wrong: they are paid
0.17 in the mean, careless ones 0.12, too near to be told apart in 40 steps."""


def test_every_reward_of_ours_has_its_curve_and_the_command_runs_one_a_family() -> None:
    assert {curve.reward for curve in CURVES} == set(REWARDS)
    assert sorted(curve.family for curve in curves_of([])) == sorted(FAMILIES)
    assert [curve.reward for curve in curves_of(["random", "tag_count"])] == ["tag_count", "random"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_every_family_and_its_control_learnt_nothing(record) -> None:
    rows = json.loads(record.read_text())["curves"]
    assert {row["family"] for row in rows} == FAMILIES
    assert {row["reward"] for row in rows if row["learnt"] == row["is_control"]} <= NOT_LEARNT


def test_a_share_has_wilsons_interval_in_any_range() -> None:
    assert interval([0.0, 1.0, 1.0, 1.0], 0.0, 1.0) == wilson(3, 4)
    shifted = interval([-1.0, 0.0, 0.0, 0.0], -1.0, 0.0)
    assert (shifted.low, shifted.high) == pytest.approx((wilson(3, 4).low - 1, wilson(3, 4).high - 1))


def test_an_interval_of_partial_credit_holds_the_mean_at_least_as_often_as_it_says() -> None:
    rng = random.Random(0)
    samples = [[rng.choice([0.0, 0.1, 0.5, 1.0]) for _ in range(50)] for _ in range(400)]
    held = (interval(scores, 0.0, 1.0) for scores in samples)
    assert fmean(one.low <= 0.4 <= one.high for one in held) >= 0.95
