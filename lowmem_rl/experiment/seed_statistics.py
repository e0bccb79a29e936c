"""Statistics of methods: the seed is the unit, because two runs of one method differ more than their items say.

Simulated with two equal methods, 3 seeds, 500 items and a spread between runs of 0.044: McNemar's test on one run each
calls them different in 44 % of studies, pooled seeds and items in 46 %, the paired t over seeds in 5 %.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import fmean, stdev
from typing import Any

from lowmem_rl.stats import SIGNIFICANT, Interval

ASSUMED_SPREAD = 0.03
"""Standard deviation of accuracy between runs of one method that differ in their seed, until two seeds show it."""
WANTED_POWER = 0.8
_DRAWS = 2000
_NO_SPREAD = 1e-9
"""A standard deviation below it is one of rounding."""
_EXACT_UP_TO = 2**16
"""Ways to swap that are all counted; of more, as many are drawn."""


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """An arm against the baseline, paired by seed: the mean difference and what the seeds say of it."""

    gain: float
    interval: Interval | None
    """95 %, by Student's t; None for one seed, and for differences that are all equal."""
    p_value: float | None
    """Two-sided, of the paired t test over seeds, of equal differences the exact one; None for one seed."""
    sign_flip_p: float
    """Exact: of all ways to swap arm and baseline within seeds. With n seeds it is at least 2 / 2^n."""
    lower_bound: float | None
    """One-sided, 95 %: the difference is above it; None for one seed, and for fewer than five equal differences."""
    num_seeds: int
    deviation: float | None = None
    """Standard deviation of the differences; None for one seed."""


def seed_difference(differences: Sequence[float]) -> SeedDifference:
    """Compares by one difference a seed, not empty.

    Shares of few items are often equal: without a spread Student's t calls any of them certain, and the exact test,
    which needs none, decides.
    """
    from scipy.stats import ttest_1samp

    gain, count = fmean(differences), len(differences)
    if count < 2:
        return SeedDifference(gain, None, None, 1.0, None, count)
    exact, deviation = _sign_flip(differences), stdev(differences)
    if deviation < _NO_SPREAD:
        bound = gain if 0.5**count <= SIGNIFICANT else None
        return SeedDifference(gain, None, exact, exact, bound, count, deviation)
    two_sided, above = ttest_1samp(differences, 0.0), ttest_1samp(differences, 0.0, alternative="greater")
    interval, lower = two_sided.confidence_interval(), float(above.confidence_interval().low)
    both = Interval(float(interval.low), float(interval.high))
    return SeedDifference(gain, both, float(two_sided.pvalue), exact, lower, count, deviation)


def seen_spread(differences: Iterable[SeedDifference]) -> float | None:
    """Returns the standard deviation of a run's measured value within one method, as pairs of seeds show it.

    Pooled over arms, and without what the runs of a seed share. None before an arm has two seeds, or without a spread.
    """
    known = [(one.num_seeds - 1, one.deviation) for one in differences if one.deviation is not None]
    if not known:
        return None
    pooled = sqrt(fsum(df * deviation**2 for df, deviation in known) / sum(df for df, _ in known))
    return pooled / sqrt(2) if pooled >= _NO_SPREAD else None


def _sign_flip(differences: Sequence[float]) -> float:
    from scipy.stats import permutation_test

    def mean(values: Any, axis: int) -> Any:
        return values.mean(axis=axis)

    found = permutation_test(
        (differences,), mean, permutation_type="samples", vectorized=True, n_resamples=_EXACT_UP_TO, random_state=0
    )
    return float(found.pvalue)


def crossed_interval(values: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """Returns the 95 % interval of the mean of values by seed and item, (seeds, items), none empty.

    Seeds and items are drawn independently (the pigeonhole bootstrap; Owen 2007, arXiv 0712.1111), so that it holds
    for other seeds and other items.
    """
    import numpy

    table, random = numpy.asarray(values, dtype=float), numpy.random.default_rng(seed)
    means = _drawn_means(table, random)
    low, high = numpy.quantile(means, [SIGNIFICANT / 2, 1 - SIGNIFICANT / 2])
    return Interval(float(low), float(high))


def _drawn_means(table: Any, random: Any) -> Any:
    """Returns the mean of each draw, (_DRAWS,)."""
    seeds, items = table.shape
    by_seed = random.multinomial(seeds, [1 / seeds] * seeds, size=_DRAWS) / seeds
    by_item = random.multinomial(items, [1 / items] * items, size=_DRAWS) / items
    return ((by_seed @ table) * by_item).sum(axis=1)


def power(gain: float, spread: float, num_seeds: int, alpha: float = SIGNIFICANT) -> float:
    """Returns how often the paired t test over seeds finds a true gain.

    `spread` is the standard deviation of a run's measured value within one method, so that of a difference is sqrt(2)
    times it. `alpha` is what the test has left after a correction for several arms.
    """
    return _found_share(gain / _error_of(spread, num_seeds), num_seeds, alpha) if num_seeds > 1 else 0.0


def smallest_gain(spread: float, num_seeds: int, alpha: float = SIGNIFICANT) -> float | None:
    """Returns the smallest true gain that is found in four of five studies, None for fewer than two seeds."""
    from scipy.optimize import brentq
    from scipy.stats import t

    if num_seeds < 2:
        return None
    limit = float(t.ppf(1 - alpha / 2, num_seeds - 1))
    shift = brentq(lambda shift: _found_share(shift, num_seeds, alpha) - WANTED_POWER, 0.0, 3 * limit)
    return float(shift) * _error_of(spread, num_seeds)


def _error_of(spread: float, num_seeds: int) -> float:
    return sqrt(2) * spread / sqrt(num_seeds)


def _found_share(shift: float, num_seeds: int, alpha: float) -> float:
    """Returns the power of a two-sided t test for a difference of so many standard errors.

    A noncentral t (Cohen, Statistical Power Analysis, 1988), integrated over the variance that is seen: SciPy's own is
    not a number for two seeds.
    """
    from scipy.integrate import quad
    from scipy.stats import chi2, norm, t

    df = num_seeds - 1
    limit = t.ppf(1 - alpha / 2, df)

    def found(share: float) -> float:
        seen = sqrt(chi2.ppf(share, df) / df)
        return float(norm.sf(limit * seen - shift) + norm.cdf(-limit * seen - shift))

    return float(quad(found, 0.0, 1.0, epsabs=1e-6)[0])


def expected_spread(pass_rate: float, items: int, between_runs: float = ASSUMED_SPREAD) -> float:
    """Returns the standard deviation of a run's measured accuracy: that between runs, and that of drawing items."""
    return sqrt(between_runs**2 + pass_rate * (1 - pass_rate) / items)
