"""The learning curves: every reward has one, and the intervals are honest."""

import random
from statistics import fmean

import pytest

from benchmarks.learning_curves import CURVES, curves_of, interval
from lowmem_rl.rewards.reward_registry import REWARDS
from lowmem_rl.stats import wilson

FAMILIES = {curve.family for curve in CURVES}


def test_every_reward_has_a_curve_and_the_command_runs_one_per_family() -> None:
    assert {curve.reward for curve in CURVES} == set(REWARDS)
    assert sorted(curve.family for curve in curves_of([])) == sorted(FAMILIES)
    assert [curve.reward for curve in curves_of(["random", "tag_count"])] == ["tag_count", "random"]


def test_a_share_has_wilsons_interval_in_any_range() -> None:
    assert interval([0.0, 1.0, 1.0, 1.0], 0.0, 1.0) == wilson(3, 4)
    shifted = interval([-1.0, 0.0, 0.0, 0.0], -1.0, 0.0)
    assert (shifted.low, shifted.high) == pytest.approx((wilson(3, 4).low - 1, wilson(3, 4).high - 1))


def test_an_interval_of_partial_credit_contains_the_mean_at_least_as_often_as_claimed() -> None:
    rng = random.Random(0)
    samples = [[rng.choice([0.0, 0.1, 0.5, 1.0]) for _ in range(50)] for _ in range(400)]
    held = (interval(scores, 0.0, 1.0) for scores in samples)
    assert fmean(one.low <= 0.4 <= one.high for one in held) >= 0.95
