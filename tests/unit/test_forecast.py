import math
import random

import pytest

from benchmarks.goal_backtest import score
from lowmem_rl.forecast import steps_to


def curve(steps: int, slope: float, start: float = -1.5, rows: int = 64, seed: int = 0) -> list[float]:
    drawn = random.Random(seed)
    shares = [1 / (1 + math.exp(-(start + slope * step))) for step in range(1, steps + 1)]
    return [sum(drawn.random() < share for _ in range(rows)) / rows for share in shares]


def test_a_curve_without_noise_is_forecast_to_the_step() -> None:
    accuracies = [1 / (1 + math.exp(-(-1.5 + 0.1 * step))) for step in range(1, 16)]
    found = steps_to(0.8, accuracies, rows=10_000)
    assert found is not None
    assert found.expected == pytest.approx((math.log(4) + 1.5) / 0.1, abs=0.2)
    assert found.low < found.expected < found.high


def test_more_completions_a_step_make_it_narrower() -> None:
    few, many = (steps_to(0.8, curve(20, 0.1, rows=rows), rows) for rows in (64, 1024))
    assert few is not None
    assert many is not None
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(
    "accuracies", [[], [0.2] * 7, [0.25] * 30, curve(30, 0.0), curve(30, -0.1), [0.0] * 20, [1.0] * 20]
)
def test_a_run_that_does_not_learn_or_has_just_begun_gets_none(accuracies: list[float]) -> None:
    assert steps_to(0.9, accuracies, 64) is None


def test_a_goal_far_away_is_too_early_to_tell() -> None:
    accuracies = [1 / (1 + math.exp(3 - 0.02 * step)) for step in range(1, 12)]
    assert steps_to(0.9, accuracies, 100_000) is None


def test_of_simulated_runs_nine_of_ten_forecasts_hold() -> None:
    curves = [curve(40, slope, seed=seed) for seed, slope in enumerate([0.08, 0.1, 0.12, 0.15] * 5)]
    found = score(curves)
    assert found["forecasts"] > 200
    assert 0.85 <= found["cover"] <= 1.0
    assert score([curve(40, 0.0, seed=seed) for seed in range(20)])["forecasts"] <= 5


def test_a_forecast_is_in_order_and_not_in_the_past() -> None:
    for seed in range(300):
        steps = 8 + seed % 40
        found = steps_to(0.5, curve(steps, 0.06, rows=16, seed=seed), rows=16)
        assert found is None or steps <= found.low <= found.expected <= found.high
