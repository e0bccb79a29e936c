"""What a run costs to rent: its hours times a price an hour, the user's own or one that was published for the card."""

from dataclasses import dataclass
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import Card
from lowmem_rl.planning.step_time import StepTime

_HOUR_S = 3600
_MOST_AN_HOUR = 10_000.0


@dataclass(frozen=True, slots=True)
class Price:
    """A price an hour, on demand, and where it is from."""

    an_hour: float
    source: str
    currency: str = ""
    """Empty for a number of the user's own."""


def _usd(an_hour: float, source: str) -> Price:
    return Price(an_hour, source, "USD")


_JOBS = "Hugging Face Jobs, huggingface.co/docs/hub/jobs-pricing, read 2026-11-30 (huggingface/hub-docs@0b8c07f)"
_RUNPOD_NOVEMBER = "RunPod's secure cloud, runpod.io/pricing, 2026-11-09 (datareceipts/data-receipts)"
PRICES: dict[str, Price] = {
    "t4": _usd(0.40, _JOBS),
    "l4": _usd(0.80, _JOBS),
    "a10g": _usd(1.00, _JOBS),
    "3090": _usd(0.18, "OpenRelay, openrelay.inc, 2026-09-20 (api-evangelist/openrelay)"),
    "4090": _usd(0.29, "OpenRelay, openrelay.inc, 2026-09-20 (api-evangelist/openrelay)"),
    "a6000": _usd(0.82, "Verda, verda.com/pricing, 2026-10-29 (lanternworks/gpu-cloud-prices)"),
    "a100-40": _usd(1.99, "Lambda, lambda.com/service/gpu-cloud, 2026-11-16 (datareceipts/data-receipts)"),
    "a100-80": _usd(1.79, _RUNPOD_NOVEMBER),
    "h100": _usd(2.89, f"{_RUNPOD_NOVEMBER}, PCIe"),
    "h200": _usd(4.59, "RunPod, runpod.io/pricing, 2026-10-07 (api-evangelist/runpod)"),
}
"""By the keys of `hardware.CARDS`; one vendor's each: from its own page, or as transcribed in the named collection.
Others ask up to four times as much for the same card."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """What the whole run costs, evaluations included."""

    low: float
    high: float
    price: Price

    def __str__(self) -> str:
        unit = f" {self.price.currency}" if self.price.currency else ""
        return f"{self.low:.2f} to {self.high:.2f}{unit}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data; money in hundredths."""
        return {
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "price_an_hour": self.price.an_hour,
            "currency": self.price.currency or None,
            "source": self.price.source,
        }


def run_cost(time: StepTime | None, card: Card | None, price_an_hour: float | None = None) -> RunCost | None:
    """Returns a run's cost at the user's price, else at the card's published one; None without a time or a price.

    Raises `ConfigError` for a price that is negative or no number.
    """
    check_price(price_an_hour, "--price")
    price = PRICES.get(card.key) if card else None
    if price_an_hour is not None:
        price = Price(price_an_hour, "--price")
    if time is None or price is None:
        return None
    low, high = (seconds / _HOUR_S * price.an_hour for seconds in (time.run.low, time.run.high))
    return RunCost(low, high, price)


def check_price(an_hour: float | None, option: str) -> None:
    """Raises `ConfigError` for the value of an option that is no price an hour; None is a price that is not given."""
    if an_hour is not None and not 0 <= an_hour <= _MOST_AN_HOUR:  # also of a value that is not a number
        what = f"{option} {an_hour} is not a price an hour: 0 to {_MOST_AN_HOUR:,.0f}."
        raise ConfigError(what, hint="Give the price of one hour of the card, such as 0.8.")
