"""Shares with their uncertainty, tests of two on the same items, and the Beta distribution of pass rates.

The item is the unit everywhere: several samples of one item are correlated and never count as items.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, exp, inf, lgamma, log, sqrt
from random import Random
from statistics import fmean, median

_Z_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution."""
SIGNIFICANT = 0.05
_BOOTSTRAP_DRAWS = 2000
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed 95 % interval: of a share within [0, 1], of a difference of shares within [-1, 1], of a median."""

    low: float
    high: float

    def is_disjoint_from(self, other: "Interval") -> bool:
        """True if the two share no point."""
        return self.high < other.low or other.high < self.low


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more often the second is right than the first, on the same items.

    `won` items are right more often in the second, `lost` in the first. `p_value` is two-sided.
    """

    gain: float
    interval: Interval
    p_value: float
    won: int
    lost: int
    num_items: int

    @property
    def is_distinguishable(self) -> bool:
        """True if chance alone would show such a difference in less than one of twenty comparisons."""
        return self.p_value < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Shift:
    """Two means, and their difference in standard errors (Welch 1947)."""

    before: float
    after: float
    z: float

    @property
    def change(self) -> float:
        return self.after - self.before


def wilson(successes: float, trials: float) -> Interval:
    """Returns the 95 % score interval of a share (Wilson 1927); [0, 1] without trials.

    Trials may be an effective number, not an integer.
    """
    if trials <= 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def clustered_share(successes: Sequence[int], trials: int) -> tuple[float, Interval]:
    """Returns the share over items that were each tried `trials` times, and its 95 % interval."""
    return clustered_mean([count / trials for count in successes], trials)


def clustered_mean(values: Sequence[float], trials: int) -> tuple[float, Interval]:
    """Returns the mean of one value an item, each within [0, 1] and from `trials` samples, and its 95 % interval.

    The number of samples is divided by the design effect, the variance of the items' mean against that of independent
    samples (Kish, Survey Sampling, 1965), before Wilson's interval is taken.
    """
    mean = fmean(values)
    spread = _variance(values, mean)
    # Values that are all equal differ by rounding.
    effective = len(values) * (mean * (1 - mean)) / spread if spread > ROUNDING else len(values)
    effective = min(max(effective, 1.0), float(len(values) * trials))
    return mean, wilson(mean * effective, effective)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Returns the unbiased chance that one of `k` samples is right, if `right` of `samples` are.

    Chen et al. 2021, arXiv:2107.03374, equation 1. Raises `ValueError` unless `k` is from 1 to `samples`.
    """
    _check_k(k, samples)
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def maj_at_k(answers: Sequence[str | None], is_right: Sequence[bool], k: int) -> float:
    """Returns how often the most frequent of `k` answers is right, over blocks of `k` samples of one item.

    Equal answers are equally right. None is no answer and has no vote; answers that tie share one.
    Raises `ValueError` unless `k` is from 1 to the number of samples.
    """
    _check_k(k, len(answers))
    right = dict(zip(answers, is_right, strict=True))
    blocks = [answers[start : start + k] for start in range(0, len(answers) - k + 1, k)]
    return fmean(_majority_share(block, right) for block in blocks)


def compare_paired(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Compares two lists of one value an item, each within [0, 1], item by item.

    If every value is 0 or 1, the p-value is McNemar's, else the bootstrap's. Raises `ValueError` for lists that are
    empty or of different lengths.
    """
    gains = [after - before for before, after in zip(first, second, strict=True)]
    if not gains:
        raise ValueError("there are no items to compare")
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    interval, bootstrap_p = bootstrap_gain(gains)
    p_value = mcnemar(won, lost) if {*first, *second} <= {0, 1} else bootstrap_p
    return PairedDifference(fmean(gains), interval, p_value, won, lost, len(gains))


def compare_shared(first: Mapping[str, float], second: Mapping[str, float]) -> PairedDifference | None:
    """Compares one value an item, by the item's name, on the items that both have; None if there are none."""
    both = [name for name in first if name in second]
    return compare_paired([first[name] for name in both], [second[name] for name in both]) if both else None


def mcnemar(won: int, lost: int, *, exact: bool = False) -> float:
    """Returns McNemar's two-sided p-value from the items that only one of two got right.

    The mid-p value counts the observed outcome half. It keeps the error rate of 5 %; the `exact` one is so far below
    that it misses differences (Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91).
    """
    discordant, fewer = won + lost, min(won, lost)
    ways = [comb(discordant, count) for count in range(fewer + 1)]
    tail = 2 * sum(ways) - (0 if exact else ways[-1])
    return min(1.0, tail / (1 << discordant))


def bootstrap_gain(gains: Sequence[float], draws: int = _BOOTSTRAP_DRAWS, seed: int = 0) -> tuple[Interval, float]:
    """Returns the 95 % percentile interval of the mean of paired differences, and the p-value of none.

    Items are drawn with their pairs intact. One item won and one lost are added, as Bonett and Price do for their
    interval (2012, doi:10.3102/1076998611411915), or few differing items would count as certainty.
    """
    padded, random = [*gains, 1.0, -1.0], Random(seed)
    size = len(padded)
    means = sorted(sum(random.choices(padded, k=size)) / size for _ in range(draws))
    cut = round(draws * 0.025)
    below, above = sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means)
    # The sample itself counts as one draw: finitely many draws never prove a probability of 0.
    return Interval(means[cut], means[-1 - cut]), min(1.0, 2 * (1 + min(below, above)) / (1 + draws))


def bootstrap_median(values: Sequence[float], draws: int = _BOOTSTRAP_DRAWS, seed: int = 0) -> Interval:
    """Returns the 95 % percentile interval of the median (Efron 1979). Equal values and seed, equal interval."""
    random = Random(seed)
    medians = sorted(median(random.choices(values, k=len(values))) for _ in range(draws))
    cut = round(draws * 0.025)
    return Interval(medians[cut], medians[-1 - cut])


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values for several tests: the chance of one false alarm among them stays 5 % (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def shift(before: Sequence[float], after: Sequence[float]) -> Shift:
    """Compares the means of two windows; each has at least two values."""
    first, second = fmean(before), fmean(after)
    error = sqrt(_variance(before, first) / len(before) + _variance(after, second) / len(after))
    if error:
        return Shift(first, second, (second - first) / error)
    return Shift(first, second, 0.0 if first == second else inf if second > first else -inf)


def errors_above(share: float, threshold: float, trials: float) -> float:
    """Returns by how many standard errors a share is above a threshold (score test, as Wilson's interval)."""
    return (share - threshold) / sqrt(threshold * (1 - threshold) / trials)


def errors_between(before: float, trials_before: float, after: float, trials_after: float) -> float:
    """Returns by how many standard errors the second share is above the first (pooled two-proportion test)."""
    pooled = (before * trials_before + after * trials_after) / (trials_before + trials_after)
    pooled = min(1.0, max(0.0, pooled))
    error = sqrt(pooled * (1 - pooled) * (1 / trials_before + 1 / trials_after))
    return (after - before) / error if error else 0.0


def log_beta(a: float, b: float) -> float:
    """Returns ln B(a, b)."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


_BETA_MEANS, _BETA_CONCENTRATIONS = (1e-4, 1 - 1e-4), (1e-2, 1e4)
"""Limits of the mean and of a + b within which `likeliest_beta` searches."""
_BETA_GRID, _BETA_ZOOMS = 24, 4


def likeliest_beta(tally: Mapping[tuple[int, int], int]) -> tuple[float, float]:
    """Returns (a, b) of the Beta distribution of pass rates under which the counts are likeliest.

    `tally` has how often each (right, sampled) pair occurred. Empirical Bayes for the beta-binomial model (Skellam,
    J. R. Stat. Soc. B 10, 1948), on a grid over log-odds of the mean and log of a + b that narrows around its best
    point. A fixed prior for each prompt does not wear off with more prompts: under Jeffreys' prior two thousand
    prompts without one right answer among eight still looked as if more than a quarter of their groups could teach.
    """

    def likelihood(point: tuple[float, float]) -> float:
        """The log-likelihood, without the binomial coefficients: they do not depend on a and b."""
        a, b = _beta_parameters(*point)
        whole = log_beta(a, b)
        return sum(times * (log_beta(a + k, b + n - k) - whole) for (k, n), times in tally.items())

    log_odds = tuple(log(mean / (1 - mean)) for mean in _BETA_MEANS)
    log_concentrations = tuple(map(log, _BETA_CONCENTRATIONS))
    best = (0.0, 0.0)
    for _ in range(_BETA_ZOOMS):
        best = max(product(_grid(*log_odds), _grid(*log_concentrations)), key=likelihood)
        log_odds = _narrowed(best[0], *log_odds)
        log_concentrations = _narrowed(best[1], *log_concentrations)
    return _beta_parameters(*best)


def _beta_parameters(log_odds: float, log_concentration: float) -> tuple[float, float]:
    mean, concentration = 1 / (1 + exp(-log_odds)), exp(log_concentration)
    return mean * concentration, (1 - mean) * concentration


def _grid(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / (_BETA_GRID - 1) for i in range(_BETA_GRID)]


def _narrowed(centre: float, low: float, high: float) -> tuple[float, float]:
    """Returns one grid step to each side of the centre, within the old limits."""
    step = (high - low) / (_BETA_GRID - 1)
    return max(low, centre - step), min(high, centre + step)


def _variance(values: Sequence[float], mean: float) -> float:
    """The sample variance; `statistics.variance` computes with fractions and is a hundred times slower."""
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else 0.0


def _majority_share(block: Sequence[str | None], right: dict[str | None, bool]) -> float:
    votes = Counter(answer for answer in block if answer is not None)
    most = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == most]
    return fmean(right[answer] for answer in winners) if winners else 0.0


def _check_k(k: int, samples: int) -> None:
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}, and there are {samples} samples")
