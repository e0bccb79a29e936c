import random
from functools import cache
from itertools import combinations
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.stats import (
    Interval,
    bootstrap_gain,
    bootstrap_median,
    clustered_mean,
    clustered_share,
    compare_paired,
    errors_above,
    errors_between,
    holm,
    maj_at_k,
    mcnemar,
    pass_at_k,
    shift,
    wilson,
)

SIMULATED = 2000


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


def test_touching_intervals_are_not_disjoint() -> None:
    assert not Interval(0.1, 0.5).is_disjoint_from(Interval(0.5, 0.9))
    assert Interval(0.1, 0.4).is_disjoint_from(Interval(0.5, 0.9))
    assert Interval(0.5, 0.9).is_disjoint_from(Interval(0.1, 0.4))


def test_items_that_resemble_themselves_widen_the_interval() -> None:
    equal = clustered_share([8, 0] * 20, 8)[1]
    mixed = clustered_share([4] * 39 + [5], 8)[1]
    assert equal.high - equal.low > 2 * (mixed.high - mixed.low)


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


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("items", [100, 500])
def test_the_interval_of_one_sample_an_item_covers_the_true_share(items, share) -> None:
    # Counts are whole, so the coverage of n = 100 swings with the share: ten times the simulations show it.
    interval_of = [wilson(count, items) for count in range(items + 1)]
    right = np.random.default_rng(0).binomial(items, share, 10 * SIMULATED)
    intervals = [interval_of[count] for count in right]
    assert 0.93 <= np.mean([i.low <= share <= i.high for i in intervals]) <= 0.97


@pytest.mark.parametrize("mean", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("k", [1, 4])
def test_the_interval_of_pass_at_k_covers_its_true_value(mean, k) -> None:
    # Difficulties follow Beta(mean, 1 - mean), as in a set of easy and hard items: 8 samples of 200 items.
    rng, samples = np.random.default_rng(0), 8
    truth = 1 - np.prod([(1 - mean + i) / (1 + i) for i in range(k)])
    of_count = np.array([pass_at_k(samples, right, k) for right in range(samples + 1)])
    rates = rng.beta(mean, 1 - mean, (SIMULATED, 200))
    intervals = [clustered_mean(values, samples)[1] for values in of_count[rng.binomial(samples, rates)].tolist()]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.97


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(case) -> None:
    samples, right, k = case
    draws = list(combinations([True] * right + [False] * (samples - right), k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    assert pass_at_k(10_000, 1, 5_000) == 0.5


@pytest.mark.parametrize("k", [0, 5])
def test_more_samples_than_there_are_cannot_be_drawn(k) -> None:
    with pytest.raises(ValueError, match="there are 4 samples"):
        pass_at_k(4, 1, k)
    with pytest.raises(ValueError, match="there are 4 samples"):
        maj_at_k(["1"] * 4, [True] * 4, k)


@pytest.mark.parametrize(
    ("answers", "right", "share"),
    [
        (["7", "7", "8", "9"], "7", 1.0),
        (["7", "8", "8", "9"], "7", 0.0),
        (["7", "7", "8", "8"], "7", 0.5),
        ([None, None, None, "7"], "7", 1.0),
        ([None, None, None, None], "7", 0.0),
    ],
)
def test_the_most_frequent_answer_counts_and_no_answer_has_no_vote(answers, right, share) -> None:
    assert maj_at_k(answers, [answer == right for answer in answers], 4) == share


def test_the_majority_is_taken_over_blocks() -> None:
    assert maj_at_k(["7", "7", "8", "8", "7"], [True, True, False, False, True], 2) == 0.5


def test_mcnemar_equals_the_binomial_test_and_its_mid_p() -> None:
    # 2 of 10 by hand: 2 (1 + 10 + 45) / 1024, and with the observed 45 counted once.
    assert mcnemar(2, 8, exact=True) == pytest.approx(112 / 1024)
    assert mcnemar(8, 2) == pytest.approx(67 / 1024)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0


def simulated_p_values(items: int, discordant: float, gain: float) -> np.ndarray:
    shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    counts = np.random.default_rng(0).multinomial(items, shares, SIMULATED)
    test = cache(mcnemar)
    return np.array([test(int(won), int(lost)) for won, lost, _ in counts])


@pytest.mark.parametrize("discordant", [0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("items", [100, 500])
def test_the_paired_test_errs_in_one_of_twenty_under_no_difference(items, discordant) -> None:
    # Sampling error of 2,000 simulations: 0.5 points. With few discordant items the test errs less.
    assert np.mean(simulated_p_values(items, discordant, 0.0) < 0.05) <= 0.06


@pytest.mark.parametrize("discordant", [0.1, 0.2, 0.3, 0.4])
def test_the_paired_test_finds_ten_points_on_five_hundred_items(discordant) -> None:
    assert np.mean(simulated_p_values(500, discordant, 0.10) < 0.05) >= 0.9


@pytest.mark.slow
def test_the_bootstrap_covers_the_gain_and_errs_in_one_of_twenty() -> None:
    # Pass rates of 100 items from 4 samples each, before and after, the same underneath.
    rng, covered, alarms, rounds = np.random.default_rng(0), 0, 0, 400
    for seed in range(rounds):
        rates = rng.beta(0.5, 0.5, 100)
        before, after = rng.binomial(4, rates) / 4, rng.binomial(4, rates) / 4
        interval, p_value = bootstrap_gain((after - before).tolist(), draws=200, seed=seed)
        covered += interval.low <= 0 <= interval.high
        alarms += p_value < 0.05
    assert 0.93 <= covered / rounds <= 0.985  # two standard errors beyond 93-97 %
    assert alarms / rounds <= 0.07


def test_a_comparison_pairs_the_items() -> None:
    first, second = [1] * 40 + [0] * 60, [1] * 38 + [0] * 32 + [1] * 30
    found = compare_paired(first, second)
    assert (found.won, found.lost, found.num_items, found.gain) == (30, 2, 100, pytest.approx(0.28))
    assert found.is_distinguishable
    assert 0 < found.interval.low < 0.28 < found.interval.high
    assert found.p_value == mcnemar(30, 2)


def test_values_between_right_and_wrong_are_compared_by_the_bootstrap() -> None:
    found = compare_paired([0.25] * 100, [0.5] * 100)
    assert found.p_value == pytest.approx(2 / 2001)
    assert not compare_paired([0.25, 0.75] * 50, [0.75, 0.25] * 50).is_distinguishable


def test_runs_that_never_differ_are_not_certain_to_be_equal() -> None:
    found = compare_paired([1] * 50, [1] * 50)
    assert (found.gain, found.p_value) == (0, 1)
    assert found.interval.low < 0 < found.interval.high


def test_several_comparisons_are_held_to_one_error_rate() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_interval_of_a_median_is_within_the_values_and_narrows_with_more_of_them() -> None:
    rng = random.Random(0)
    few = bootstrap_median(values := [rng.gauss(3, 1) for _ in range(8)])
    many = bootstrap_median([rng.gauss(3, 1) for _ in range(200)])
    assert min(values) <= few.low < few.high <= max(values)
    assert many.low < 3 < many.high
    assert many.high - many.low < few.high - few.low


def test_equal_values_have_no_interval_around_their_median() -> None:
    assert bootstrap_median([2.0] * 5) == Interval(2.0, 2.0)


def test_two_windows_differ_by_welch() -> None:
    moved = shift([1.0, 3.0], [4.0, 6.0])  # variances of 2, each mean's 1: 3 / sqrt(2)
    assert (moved.before, moved.after, moved.change) == (2.0, 5.0, 3.0)
    assert moved.z == pytest.approx(2.1213, abs=1e-4)


def test_windows_without_noise_are_the_same_or_surely_different() -> None:
    assert [shift([1.0, 1.0], [after] * 3).z for after in (0.0, 1.0, 2.0)] == [-inf, 0.0, inf]


def test_a_share_is_held_against_its_threshold() -> None:
    assert errors_above(0.75, 0.5, 16) == pytest.approx(2.0)  # 0.25 / sqrt(0.25 / 16)


def test_two_shares_are_pooled() -> None:
    assert errors_between(0.5, 16, 0.5, 80) == 0.0
    assert errors_between(0.0, 16, 0.0, 80) == 0.0
    assert errors_between(0.4, 16, 0.0, 80) == pytest.approx(-5.855, abs=0.001)  # pooled 1/15
