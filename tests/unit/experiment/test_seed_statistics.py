import random
from statistics import fmean

import pytest

from lowmem_rl.experiment.seed_statistics import crossed_interval, power, seed_difference, seen_spread, smallest_gain
from lowmem_rl.stats import bootstrap_gain


def test_a_worked_case_of_the_paired_t() -> None:
    # By hand: mean 0.02, variance 0.0002 / 3, error 0.00408; t = 4.899 with 3 degrees of freedom, p = 0.0163.
    found = seed_difference([0.01, 0.02, 0.02, 0.03])
    assert found.gain == pytest.approx(0.02)
    assert found.p_value == pytest.approx(0.0163, abs=1e-4)
    assert found.sign_flip_p == pytest.approx(2 / 2**4)


def test_the_exact_test_is_bounded_by_the_number_of_seeds() -> None:
    for count in (2, 3, 5, 6):
        assert seed_difference([1.0 + 0.1 * seed for seed in range(count)]).sign_flip_p == pytest.approx(2 / 2**count)


def test_equal_runs_do_not_differ_and_one_seed_says_nothing() -> None:
    assert seed_difference([0.0, 0.0, 0.0]).p_value == 1.0
    assert seed_difference([0.1]).p_value is None


@pytest.mark.parametrize("gain", [0.05, -0.05])
def test_equal_differences_are_not_certain(gain: float) -> None:
    few, many = seed_difference([gain] * 3), seed_difference([gain] * 6)
    assert (few.p_value, few.interval, few.lower_bound) == (0.25, None, None)
    assert (many.p_value, many.lower_bound) == (2 / 2**6, pytest.approx(gain))
    rounded = seed_difference([0.3 - 0.2, 0.4 - 0.3, 0.1])
    assert rounded.p_value == 0.25


def test_the_one_sided_bound_is_below_the_gain_and_above_the_interval() -> None:
    found = seed_difference([0.01, 0.05, -0.02, 0.03])
    assert found.interval is not None
    assert found.lower_bound is not None
    assert found.interval.low < found.lower_bound < found.gain


def test_the_interval_over_seeds_and_items_is_wider_than_over_items_alone() -> None:
    drawn = random.Random(0)
    shifts = [drawn.gauss(0, 0.1) for _ in range(6)]
    table = [[float(drawn.random() < 0.5 + shift) for _ in range(200)] for shift in shifts]
    crossed = crossed_interval(table)
    alone, _ = bootstrap_gain([fmean(column) for column in zip(*table, strict=True)])
    assert crossed.low < fmean(map(fmean, table)) < crossed.high
    assert crossed.high - crossed.low > 1.5 * (alone.high - alone.low)


@pytest.mark.slow
def test_power_is_what_simulated_studies_find() -> None:
    drawn, gain, spread, seeds = random.Random(1), 0.05, 0.026, 6
    found = 0
    for _ in range(300):
        pairs = [gain + drawn.gauss(0, spread) - drawn.gauss(0, spread) for _ in range(seeds)]
        p_value = seed_difference(pairs).p_value
        found += p_value is not None and p_value < 0.05
    # Three standard errors of a share from 300 studies.
    assert found / 300 == pytest.approx(power(gain, spread, seeds), abs=0.08)


@pytest.mark.slow
def test_the_smallest_gain_is_found_in_four_of_five_studies() -> None:
    for seeds in (2, 3, 6):
        gain = smallest_gain(0.03, seeds)
        assert gain is not None
        assert power(gain, 0.03, seeds) == pytest.approx(0.8, abs=1e-6)
    assert smallest_gain(0.03, 1) is None
    assert power(0.5, 0.03, 6) == pytest.approx(1.0)


def test_the_spread_of_runs_is_seen_in_pairs_of_seeds() -> None:
    """What the runs of a seed share, such as its prompts, is in no difference."""
    drawn, spread = random.Random(0), 0.03
    shared = [drawn.gauss(0, 0.2) for _ in range(10)]
    baseline = [one + drawn.gauss(0, spread) for one in shared]
    arms = [[one + 0.1 + drawn.gauss(0, spread) for one in shared] for _ in range(8)]
    found = seen_spread(seed_difference([one - base for one, base in zip(arm, baseline, strict=True)]) for arm in arms)
    assert found == pytest.approx(spread, rel=0.25)


def test_no_spread_is_seen_in_one_seed_or_in_equal_differences() -> None:
    assert seen_spread([]) is None
    assert seen_spread([seed_difference([0.1])]) is None
    assert seen_spread([seed_difference([0.1, 0.1, 0.1])]) is None
    assert seen_spread([seed_difference([0.1]), seed_difference([0.0, 0.2])]) == pytest.approx(0.1)
