"""How certain a difference must be. The detectors run after every step: a bound that one check in forty exceeds by
chance would be exceeded in every run."""

from statistics import NormalDist

WINDOW = 10
"""Rounds of sampling that count as "now"."""
START = 5
"""Rounds that count as "at first"."""
SURE = 3.0
"""Standard errors by which a share must exceed its threshold: by chance one check in 740 does, at the threshold."""
SURELY_MOVED = 4.0
"""The same between two windows of a few rounds, whose standard errors are estimated from those few."""
SOLVED = 0.9
"""Accuracy from which on little is left to learn: dead groups and low entropy are success then."""
MOST_CONFIDENT = 0.99


def confidence(errors: float, reliability: float) -> float:
    """Returns how likely a finding names the cause: that it is not chance, times how often it is the cause then."""
    return min(MOST_CONFIDENT, NormalDist().cdf(abs(errors)) * reliability)
