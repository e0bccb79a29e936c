"""What a run costs to rent."""

import re

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import plan
from lowmem_rl.planning.run_cost import PRICES, run_cost
from lowmem_rl.planning.step_time import SecondsRange, StepTime

TIME = StepTime(SecondsRange(1, 2), {}, SecondsRange(3600, 9000), SecondsRange(0, 0))


def test_hours_times_the_price_that_is_given_or_was_published() -> None:
    own = run_cost(TIME, CARDS["a6000"], 0.5)
    published = run_cost(TIME, CARDS["a6000"])
    assert own is not None
    assert published is not None
    assert str(own) == "0.50 to 1.25"
    assert own.to_json()["source"] == "--price"
    assert published.to_json()["high"] == pytest.approx(2.5 * PRICES["a6000"].an_hour)
    assert str(published).endswith("USD")


def test_nothing_is_said_without_a_time_or_a_price() -> None:
    assert run_cost(None, CARDS["a6000"], 1.0) is None
    assert run_cost(TIME, CARDS["a4000"]) is None
    assert run_cost(TIME, None) is None


@pytest.mark.parametrize("key", ["t4", "l4", "a10g"])
def test_a_small_clouds_card_has_a_time_and_a_price(key: str) -> None:
    config = resolve(preset="qwen1.5b-24gb", settings=["memory.micro_batch=4", "memory.rollout_rows=8"]).config
    planned = plan(config, load_shape(config.model.name), CARDS[key])
    found = run_cost(planned.time, CARDS[key])
    assert planned.time is not None
    assert found is not None
    assert found.low == pytest.approx(planned.time.run.low / 3600 * PRICES[key].an_hour)


@pytest.mark.parametrize("price", [-1.0, float("nan"), 1e9])
def test_what_is_no_price_is_refused(price: float) -> None:
    with pytest.raises(ConfigError, match="--price"):
        run_cost(TIME, CARDS["a6000"], price)


def test_every_price_names_a_card_a_vendor_and_a_date() -> None:
    assert PRICES.keys() <= CARDS.keys()
    assert all(re.search(r"\d{4}-\d{2}-\d{2}", price.source) for price in PRICES.values())
