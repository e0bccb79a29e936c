import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.stats import Interval, bootstrap_median, clustered_share, wilson


def test_a_worked_case() -> None:
    # Wilson's interval for 45 of 100 by hand: centre (0.45 + 1.9207/100) / (1 + 3.8415/100) = 0.45186,
    # half width 1.96 * sqrt(0.45 * 0.55 / 100 + 3.8415 / 40000) / 1.038415 = 0.09569.
    interval = wilson(45, 100)
    assert (interval.low, interval.high) == pytest.approx((0.35617, 0.54755), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(case) -> None:
    successes, trials = case
    interval = wilson(successes, trials)
    assert 0 <= interval.low <= successes / trials + 1e-9
    assert successes / trials - 1e-9 <= interval.high <= 1


def test_no_trials_say_nothing() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)


def test_touching_intervals_are_not_apart() -> None:
    assert not Interval(0.1, 0.5).apart_from(Interval(0.5, 0.9))
    assert Interval(0.1, 0.4).apart_from(Interval(0.5, 0.9))
    assert Interval(0.5, 0.9).apart_from(Interval(0.1, 0.4))


def test_items_that_resemble_themselves_widen_the_interval() -> None:
    alike = clustered_share([8, 0] * 20, 8)[1]
    mixed = clustered_share([4] * 39 + [5], 8)[1]
    assert alike.high - alike.low > 2 * (mixed.high - mixed.low)


@pytest.mark.parametrize("samples", [4, 8])
def test_the_interval_over_items_covers_the_true_rate(samples) -> None:
    # Items of very different difficulty, Beta(0.5, 0.5): the mean rate is 0.5.
    rng = random.Random(0)
    covered = 0
    for _ in range(1000):
        rates = [rng.betavariate(0.5, 0.5) for _ in range(100)]
        passed = [sum(rng.random() < rate for _ in range(samples)) for rate in rates]
        interval = clustered_share(passed, samples)[1]
        covered += interval.low <= 0.5 <= interval.high
    assert 930 <= covered <= 975


def test_the_interval_of_a_median_lies_within_the_values_and_narrows_with_more_of_them() -> None:
    rng = random.Random(0)
    few = bootstrap_median(values := [rng.gauss(3, 1) for _ in range(8)])
    many = bootstrap_median([rng.gauss(3, 1) for _ in range(200)])
    assert min(values) <= few.low < few.high <= max(values)
    assert many.low < 3 < many.high
    assert many.high - many.low < few.high - few.low


def test_equal_values_have_no_interval_around_their_median() -> None:
    assert bootstrap_median([2.0] * 5) == Interval(2.0, 2.0)
