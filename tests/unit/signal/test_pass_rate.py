import random

import pytest

from lowmem_rl.signal.pass_rate import given, measured


@pytest.mark.parametrize(("rate", "group_size"), [(0.0, 8), (0.01, 8), (0.02, 8), (0.1819, 8), (0.5, 4), (1.0, 8)])
def test_many_prompts_of_one_rate_show_the_share_that_rate_has(rate, group_size) -> None:
    rng = random.Random(0)
    counts = [(sum(rng.random() < rate for _ in range(8)), 8) for _ in range(2000)]
    found = measured(counts).informative_share(group_size)
    assert found == pytest.approx(given(rate).informative_share(group_size), abs=0.02)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 1.0), (0.2, 2.0)])
def test_many_prompts_of_a_known_spread_show_the_share_that_spread_has(a, b) -> None:
    rng = random.Random(0)
    rates = [rng.betavariate(a, b) for _ in range(2000)]
    counts = [(sum(rng.random() < rate for _ in range(8)), 8) for rate in rates]
    true = sum(given(rate).informative_share(16) for rate in rates) / len(rates)
    assert measured(counts).informative_share(16) == pytest.approx(true, abs=0.02)


def test_one_prompt_is_enough_to_answer() -> None:
    assert 0 < measured([(4, 8)]).informative_share(8) <= 1
