"""When a run will reach an accuracy: a line through the log-odds of its last steps, with an interval from a back-test.

Accuracy of learning runs rises like a logistic curve, whose log-odds are a line. A run that does not learn, or has too
few steps, gets no forecast: it is too early to tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Literal

_WINDOW = 20
"""Last steps that are read: the line bends over a whole run."""
FEWEST_STEPS = 8
"""Before so many no line is drawn."""
_Z_90 = 1.644854
"""The 95 % quantile of the standard normal distribution: 90 % are between it and its mirror image."""
_SPREAD = 1.5
"""Factor on the variance of the line, because it bends. Back-test: benchmarks/goal_backtest.py."""
FARTHEST = 3.0
"""A goal is too far away if even the forecast's late end is more than so many times the steps so far."""
_LAG = 2.0
"""Steps by which the mean of five, which decides that a goal is reached, follows the curve."""


NoForecast = Literal["few-steps", "not-rising", "too-far"]
"""Why there is none: too few steps, accuracy that does not rise for certain, a goal that is too far away."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Steps from the start of the run until its accuracy, averaged over five steps, is that of a goal; 90 %."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class _Line:
    """A weighted line through log-odds: `height` at `middle`, with the variances of both."""

    middle: float
    height: float
    slope: float
    height_variance: float
    slope_variance: float


def steps_to(goal: float, accuracies: Sequence[float], rows: int) -> Forecast | None:
    """Returns when a run reaches a goal in (0, 1); None if it is too early to tell. See `forecast`."""
    found = forecast(goal, accuracies, rows)
    return found if isinstance(found, Forecast) else None


def forecast(goal: float, accuracies: Sequence[float], rows: int) -> Forecast | NoForecast:
    """Returns when a run reaches a goal in (0, 1), or why that is too early to tell.

    `accuracies` has one share in [0, 1] a step, from the first, of `rows` completions, at least 1. Fieller's interval
    of the place at which the line has the goal's log-odds (Fieller 1954), which is one piece only if the slope is
    certainly positive.
    """
    if len(accuracies) < FEWEST_STEPS:
        return "few-steps"
    line = _fit(accuracies, rows)
    rise = log(goal / (1 - goal)) - line.height
    square = line.slope**2 - _Z_90**2 * line.slope_variance
    if line.slope <= 0 or square <= 0:
        return "not-rising"
    half = sqrt(max(0.0, (line.slope * rise) ** 2 - square * (rise**2 - _Z_90**2 * line.height_variance)))
    low, high = ((line.slope * rise + sign * half) / square + line.middle for sign in (-1, 1))
    # A goal that a noisy curve has as good as reached is ahead, too: not before the present step.
    ends = (low, rise / line.slope + line.middle, high + _LAG)
    found = Forecast(*(max(end, float(len(accuracies))) for end in ends))
    return found if found.high <= FARTHEST * len(accuracies) else "too-far"


def _fit(accuracies: Sequence[float], rows: int) -> _Line:
    last = accuracies[-_WINDOW:]
    steps = range(len(accuracies) - len(last) + 1, len(accuracies) + 1)
    log_odds = [log((share * rows + 0.5) / ((1 - share) * rows + 0.5)) for share in last]
    weights = [max(rows * share * (1 - share), 1.0) for share in last]  # the information of a binomial share
    total = sum(weights)
    middle = sum(weight * step for weight, step in zip(weights, steps, strict=True)) / total
    height = sum(weight * odds for weight, odds in zip(weights, log_odds, strict=True)) / total
    points = list(zip(weights, steps, log_odds, strict=True))
    width = sum(weight * (step - middle) ** 2 for weight, step, _ in points)
    slope = sum(weight * (step - middle) * (odds - height) for weight, step, odds in points) / width
    errors = sum(weight * (odds - height - slope * (step - middle)) ** 2 for weight, step, odds in points)
    # Rows of one group resemble each other: shares vary more than binomial ones.
    variance = _SPREAD * max(1.0, errors / (len(last) - 2))
    return _Line(middle, height, slope, variance / total, variance / width)
