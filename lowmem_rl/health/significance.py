"""How sure a difference is. Written for a look after every step: a bound that one look in forty passes by chance
would be passed in every run."""

from statistics import NormalDist

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


def confidence(errors: float, reliability: float) -> float:
    """Returns how likely a finding names what is wrong: chance ruled out, times how often that is the cause."""
    return min(MOST_CONFIDENT, NormalDist().cdf(abs(errors)) * reliability)
