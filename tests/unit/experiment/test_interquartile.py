import random

import pytest

from lowmem_rl.experiment.interquartile import InterquartileMean, interquartile_mean


def test_it_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean([[1.0, 2.0, 3.0, 4.0, 100.0]]) is not None
    for values, middle in (([5.0, 1.0, 3.0, 2.0, 100.0], 10 / 3), ([0.0, 2.0, 4.0, 9.0], 3.0), ([1.0, 2.0, 9.0], 4.0)):
        found = interquartile_mean([values])
        assert found is not None
        assert found.value == pytest.approx(middle)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert interquartile_mean([[0.4]]) == InterquartileMean(0.4, None)
    assert interquartile_mean([[0.4, 0.5], [0.6]]) == InterquartileMean(pytest.approx(0.5), None)
    assert interquartile_mean([]) is None
    assert interquartile_mean([[], []]) is None


def test_seeds_are_drawn_within_their_task() -> None:
    """Tasks that are unequally hard are no uncertainty over seeds: without a spread in either, there is none."""
    found = interquartile_mean([[0.2, 0.2, 0.2], [0.8, 0.8, 0.8]])
    assert found is not None
    assert found.interval is not None
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_lucky_run_moves_it_less_than_the_mean() -> None:
    usual = [0.50, 0.51, 0.49, 0.50, 0.52]
    plain, lucky = interquartile_mean([usual]), interquartile_mean([[*usual[:-1], 0.9]])
    assert plain is not None
    assert lucky is not None
    assert lucky.value - plain.value < 0.005 < (0.9 - 0.52) / 5


def test_the_interval_holds_for_most_studies_of_many_seeds() -> None:
    """Of a symmetric distribution the interquartile mean is its middle; that of 20 seeds covers nearly 95 %."""
    drawn, studies = random.Random(0), 100
    found = [interquartile_mean([[drawn.gauss(0.5, 0.1) for _ in range(20)]]) for _ in range(studies)]
    held = sum(
        one is not None and one.interval is not None and one.interval.low < 0.5 < one.interval.high for one in found
    )
    assert 0.86 * studies <= held < studies
