"""The interquartile mean over seeds: that of the middle half of the runs, which one lucky or unlucky run moves little.

Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021 (arXiv 2108.13264).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lowmem_rl.stats import Interval

_CUT = 0.25
"""Share of the runs that is left out at each end, rounded down: of fewer than four, none."""
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class InterquartileMean:
    """The mean of the middle half, and what other seeds could have made of it."""

    value: float
    interval: Interval | None
    """95 %, by a bootstrap that draws seeds within each task; None if a task has a single one."""


def interquartile_mean(by_task: Sequence[Sequence[float]]) -> InterquartileMean | None:
    """Returns that of all values, (tasks, seeds), of runs of one arm; None without any."""
    from numpy import asarray
    from scipy.stats import bootstrap

    samples = [asarray(values, dtype=float) for values in by_task if len(values)]
    if not samples:
        return None
    value = float(_middle_mean(*samples))
    if any(len(values) < 2 for values in samples):
        return InterquartileMean(value, None)
    found = bootstrap(
        samples, _middle_mean, vectorized=True, n_resamples=_DRAWS, method="percentile", random_state=0
    ).confidence_interval
    return InterquartileMean(value, Interval(float(found.low), float(found.high)))


def _middle_mean(*samples: Any, axis: int = -1) -> Any:
    from numpy import concatenate
    from scipy.stats import trim_mean

    return trim_mean(concatenate(samples, axis=axis), _CUT, axis=axis)
