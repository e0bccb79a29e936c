from math import comb

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from lowmem_rl.errors import ConfigError
from lowmem_rl.signal.groups import (
    MAX_GROUP_SIZE,
    baseline_efficiency,
    dead_step_probability,
    informative_share,
    smallest_group_size,
)
from lowmem_rl.signal.pass_rate import Beta, PassRate, given, measured, outcomes, pessimistic, unknown


@pytest.mark.parametrize(
    ("rewards", "group_size", "share"),
    [
        ([1.2] * 8, 8, 0.0),  # TRL's own figure calls this group informative
        ([1.2] * 7 + [0.2], 8, 1.0),
        ([1.2] * 4 + [0.2] * 4, 4, 0.0),
        ([1.2] * 4 + [0.2, 0.2, 0.2, 1.2], 4, 0.5),
    ],
)
def test_a_group_is_informative_if_its_rewards_differ(rewards, group_size, share) -> None:
    assert informative_share(rewards, group_size) == share


@forall(st.lists(st.sampled_from([0.0, 0.2, 1.0, 1.2]), min_size=4, max_size=4))
def test_the_order_within_a_group_does_not_matter(group) -> None:
    assert informative_share(group, 4) == informative_share(sorted(group), 4) == float(len(set(group)) > 1)


# 1 - p^G - (1 - p)^G, worked out elsewhere to three places.
GROUP_SIZES = (2, 3, 4, 6, 8, 12, 16, 32, 64)
CLOSED_FORM = [
    (given(0.01), (0.020, 0.030, 0.039, 0.059, 0.077, 0.114, 0.149, 0.275, 0.474)),
    (given(0.05), (0.095, 0.143, 0.185, 0.265, 0.337, 0.460, 0.560, 0.806, 0.962)),
    (given(0.10), (0.180, 0.270, 0.344, 0.469, 0.570, 0.718, 0.815, 0.966, 0.999)),
    (given(0.20), (0.320, 0.480, 0.589, 0.738, 0.832, 0.931, 0.972, 0.999, 1)),
    (given(0.30), (0.420, 0.630, 0.752, 0.882, 0.942, 0.986, 0.997, 1, 1)),
    (given(0.50), (0.500, 0.750, 0.875, 0.969, 0.992, 1, 1, 1, 1)),
    (unknown(), (0.333, 0.500, 0.600, 0.714, 0.778, 0.846, 0.882, 0.939, 0.969)),
    (pessimistic(), (0.250, 0.375, 0.453, 0.549, 0.607, 0.678, 0.720, 0.801, 0.859)),
]


@pytest.mark.parametrize(("pass_rate", "shares"), CLOSED_FORM, ids=lambda value: str(value)[:20])
def test_the_closed_form_of_the_informative_share(pass_rate: PassRate, shares) -> None:
    assert [round(pass_rate.informative_share(size), 3) for size in GROUP_SIZES] == list(shares)


def test_the_public_case_of_dead_groups() -> None:
    # A model that solves 18.19 % of its prompts.
    dead = [1 - given(0.1819).informative_share(size) for size in (2, 4, 8, 16)]
    assert [round(100 * share, 1) for share in dead] == [70.2, 44.9, 20.1, 4.0]


def test_nothing_known_of_the_pass_rate_is_one_minus_two_over_a_group_and_one() -> None:
    for size in range(2, MAX_GROUP_SIZE):
        assert unknown().informative_share(size) == pytest.approx(1 - 2 / (size + 1), abs=1e-12)


# (1 - s)^Q, worked out elsewhere to two places.
@pytest.mark.parametrize(
    ("pass_rate", "prompts", "dead"),
    [
        (0.2, 1, (0.68, 0.41, 0.17, 0.03)),
        (0.2, 4, (0.21, 0.03, 0.00, 0.00)),
        (0.05, 1, (0.91, 0.82, 0.66, 0.44)),
        (0.05, 4, (0.67, 0.44, 0.19, 0.04)),
        (0.05, 8, (0.45, 0.19, 0.04, 0.00)),
    ],
)
def test_steps_without_any_informative_group(pass_rate, prompts, dead) -> None:
    shares = [given(pass_rate).informative_share(size) for size in (2, 4, 8, 16)]
    assert [dead_step_probability(share, prompts) for share in shares] == pytest.approx(list(dead), abs=0.006)


@pytest.mark.parametrize(
    ("pass_rate", "sizes"),
    [
        (0.5, (2, 4, 5)),
        (0.3, (3, 5, 7)),
        (0.2, (4, 8, 11)),
        (0.1, (7, 16, 22)),
        (0.05, (14, 32, 45)),
        (0.02, (35, 80, 114)),
    ],
)
def test_the_smallest_group_with_a_share(pass_rate, sizes) -> None:
    share_of = given(pass_rate).informative_share
    assert tuple(smallest_group_size(share_of, share) for share in (0.5, 0.8, 0.9)) == sizes


def test_the_smallest_group_of_uniform_pass_rates_is_nine_and_of_hopeless_ones_none() -> None:
    assert smallest_group_size(unknown().informative_share) == 9  # 1 - 2/10 is 0.8 exactly
    assert smallest_group_size(given(0.001).informative_share) is None


def test_the_baseline_of_a_small_group_costs_rollouts() -> None:
    assert [baseline_efficiency(size) for size in (2, 4, 8, 16)] == [0.5, 0.75, 0.875, 0.9375]


@pytest.mark.slow
@forall(st.lists(st.tuples(st.integers(0, 16), st.integers(1, 16)).filter(lambda c: c[0] <= c[1]), min_size=1))
def test_another_completion_never_makes_a_group_less_informative(counts) -> None:
    rate = measured(counts)
    shares = [rate.informative_share(size) for size in range(2, 40)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_a_spread_of_rates_is_averaged_exactly() -> None:
    # Beta(2.5, 1.5), G = 2: 1 - E[p^2] - E[(1-p)^2] = 2ab / ((a+b)(a+b+1)) = 7.5 / 20
    rate = PassRate("measured", ((1.0, Beta(2.5, 1.5)),))
    assert rate.informative_share(2) == pytest.approx(0.375, abs=1e-12)


def test_many_samples_of_one_prompt_are_as_good_as_its_pass_rate() -> None:
    assert measured([(20_000, 100_000)]).informative_share(8) == pytest.approx(
        given(0.2).informative_share(8), abs=1e-4
    )


@forall(st.integers(2, 12), st.floats(0.01, 0.99))
def test_right_and_wrong_are_two_outcomes(group_size, share) -> None:
    binomial = [comb(group_size, k) * share**k * (1 - share) ** (group_size - k) for k in range(1, group_size)]
    assert outcomes([share, 1 - share]).informative_share(group_size) == pytest.approx(sum(binomial), abs=1e-9)


def test_a_reward_of_several_values_makes_more_groups_informative() -> None:
    # 1 - (0.2^4 + 0.5^4 + 0.3^4) = 1 - 0.0016 - 0.0625 - 0.0081
    assert outcomes([0.2, 0.5, 0.3]).informative_share(4) == pytest.approx(0.9278)
    assert given(0.2).informative_share(4) < 0.9278


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_pass_rate_outside_its_range_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="outside 0 to 1"):
        given(wrong)


@pytest.mark.parametrize("counts", [[], [(3, 2)], [(-1, 2)], [(0, 0)]])
def test_counts_that_cannot_be_are_refused(counts) -> None:
    with pytest.raises(ConfigError):
        measured(counts)


@pytest.mark.parametrize("probabilities", [[], [0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0], [0.5, float("nan")]])
def test_outcomes_that_are_no_probabilities_are_refused(probabilities) -> None:
    with pytest.raises(ConfigError):
        outcomes(probabilities)
