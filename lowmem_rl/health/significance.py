"""How sure a difference is. Written for a look after every step: a bound that one look in forty passes by chance
would be passed in every run."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist, fmean

WINDOW = 10
"""Rounds of sampling that stand for "now"."""
START = 5
"""Rounds that stand for "at first"."""
SURE = 3.0
"""Standard errors by which a share must pass its threshold: one look in 740 does by chance when it stands on it."""
SURELY_MOVED = 4.0
"""The same between two windows of a few rounds, whose standard errors are estimated from those few."""
SOLVED = 0.9
"""Accuracy from which on little is left to learn: dead groups and low entropy are success there."""
MOST_CONFIDENT = 0.99


@dataclass(frozen=True, slots=True)
class Shift:
    """Two means, and their difference in standard errors (Welch 1947)."""

    before: float
    after: float
    z: float

    @property
    def change(self) -> float:
        return self.after - self.before


def shift(before: Sequence[float], after: Sequence[float]) -> Shift:
    """Compares two windows of per-round means; each has at least two values."""
    first, second = fmean(before), fmean(after)
    error = sqrt(_squared_error(before, first) + _squared_error(after, second))
    if error:
        return Shift(first, second, (second - first) / error)
    return Shift(first, second, 0.0 if first == second else inf if second > first else -inf)


def _squared_error(values: Sequence[float], mean: float) -> float:
    """Of the mean. `statistics.variance` counts in fractions, which takes fifty times as long."""
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def errors_above(share: float, threshold: float, trials: float) -> float:
    """Returns by how many standard errors a share lies above a threshold (score test, as Wilson's interval)."""
    return (share - threshold) / sqrt(threshold * (1 - threshold) / trials)


def errors_between(before: float, trials_before: float, after: float, trials_after: float) -> float:
    """Returns by how many standard errors the second share lies above the first (pooled two-proportion test)."""
    pooled = (before * trials_before + after * trials_after) / (trials_before + trials_after)
    pooled = min(1.0, max(0.0, pooled))
    error = sqrt(pooled * (1 - pooled) * (1 / trials_before + 1 / trials_after))
    return (after - before) / error if error else 0.0


def confidence(errors: float, reliability: float) -> float:
    """Returns how likely a finding names what is wrong: chance ruled out, times how often that is the cause."""
    return min(MOST_CONFIDENT, NormalDist().cdf(abs(errors)) * reliability)
