"""Intervals for shares and medians, written once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, variance

Z_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed 95 % interval; that of a share lies within [0, 1]."""

    low: float
    high: float

    def apart_from(self, other: "Interval") -> bool:
        """True if the two share no point."""
        return self.high < other.low or other.high < self.low


def wilson(successes: float, trials: float) -> Interval:
    """Returns the 95 % score interval of a share (Wilson 1927); [0, 1] without trials.

    Trials may be an effective number, and no integer.
    """
    if trials <= 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / trials, Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 * sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def clustered_share(successes: Sequence[int], trials: int) -> tuple[float, Interval]:
    """Returns the share over items that were each tried `trials` times, and its 95 % interval.

    The item is the unit, not the trial: tries of one item resemble each other. Their number is
    divided by the design effect, the variance of the items' mean against that of independent
    trials (Kish, Survey Sampling, 1965), before Wilson's interval is taken.
    """
    shares = [count / trials for count in successes]
    share = fmean(shares)
    spread = variance(shares) if len(shares) > 1 else 0.0
    independent = share * (1 - share)
    effective = len(shares) * independent / spread if spread else len(shares)
    effective = min(max(effective, 1.0), float(len(shares) * trials))
    return share, wilson(share * effective, effective)


BOOTSTRAP_DRAWS = 2000


def bootstrap_median(values: Sequence[float], seed: int = 0) -> Interval:
    """Returns the 95 % percentile interval of the median (Efron 1979). Equal values and seed, equal interval."""
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(BOOTSTRAP_DRAWS))
    tail = round(0.025 * BOOTSTRAP_DRAWS)
    return Interval(medians[tail], medians[-1 - tail])
