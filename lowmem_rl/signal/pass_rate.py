"""How likely a completion is right, prompt by prompt: unknown, given as a mean, or measured by a probe.

All three are mixtures. What a group can teach follows from one number of each part: the probability that n completions
of a prompt all score the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, fsum
from typing import Literal

from lowmem_rl.errors import ConfigError
from lowmem_rl.stats import likeliest_beta, log_beta


@dataclass(frozen=True, slots=True)
class Beta:
    """Prompts whose pass rates are spread as a Beta distribution."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    def dead_share(self, group_size: int) -> float:
        """E[p^n + (1 - p)^n] = [B(a+n, b) + B(a, b+n)] / B(a, b)."""
        whole = log_beta(self.a, self.b)
        right = exp(log_beta(self.a + group_size, self.b) - whole)
        wrong = exp(log_beta(self.a, self.b + group_size) - whole)
        return right + wrong


@dataclass(frozen=True, slots=True)
class Categorical:
    """Prompts on which each value of the reward has the same probability; right and wrong are two values."""

    probabilities: tuple[float, ...]
    """Of a right answer first."""

    @property
    def mean(self) -> float:
        return self.probabilities[0]

    def dead_share(self, group_size: int) -> float:
        """The sum of pi_k^n over the outcomes k."""
        return fsum(p**group_size for p in self.probabilities)


@dataclass(frozen=True, slots=True)
class PassRate:
    """A mixture of kinds of prompts, each with its weight; the weights sum to 1."""

    kind: Literal["unknown", "given", "measured"]
    parts: tuple[tuple[float, Beta | Categorical], ...]

    @property
    def mean(self) -> float:
        """The mean probability of a right answer."""
        return fsum(weight * part.mean for weight, part in self.parts)

    def informative_share(self, group_size: int) -> float:
        """Returns the probability that a group of a random prompt holds rewards that differ."""
        return max(0.0, 1 - fsum(weight * part.dead_share(group_size) for weight, part in self.parts))

    def __str__(self) -> str:
        return "unknown pass rate" if self.kind == "unknown" else f"{self.kind} pass rate {self.mean:.2g}"


def unknown() -> PassRate:
    """Returns the prior of an unknown pass rate: uniform from 0 to 1."""
    return PassRate("unknown", ((1.0, Beta(1, 1)),))


def pessimistic() -> PassRate:
    """Returns Jeffreys' prior: prompts that are nearly always solved or nearly never are the most common."""
    return PassRate("unknown", ((1.0, Beta(0.5, 0.5)),))


def given(mean: float) -> PassRate:
    """Returns the same pass rate for every prompt. Raises `ConfigError` outside 0 to 1."""
    if not 0 <= mean <= 1:
        raise ConfigError(f"The pass rate {mean} is outside 0 to 1.", hint="Give a share: 0.35 for 35 %.")
    return PassRate("given", ((1.0, Categorical((mean, 1 - mean))),))


def outcomes(probabilities: Sequence[float]) -> PassRate:
    """Returns the pass rate of a reward with several values, the right answer's probability first.

    Raises `ConfigError` unless the probabilities are from 0 to 1 and sum to 1.
    """
    # Written as what must hold: no comparison holds for a NaN.
    if not all(0 <= p <= 1 for p in probabilities) or not abs(fsum(probabilities) - 1) <= 1e-6:
        raise ConfigError(f"{list(probabilities)} are not probabilities.", hint="Each is at least 0, their sum 1.")
    return PassRate("given", ((1.0, Categorical(tuple(probabilities))),))


def measured(counts: Iterable[tuple[int, int]]) -> PassRate:
    """Returns the pass rate of (right, sampled) counts, one pair a prompt.

    Each prompt keeps its uncertainty: the mixture holds its posterior Beta(a + k, b + n - k) under the prior Beta(a, b)
    that makes all counts likeliest. Raises `ConfigError` for impossible counts.
    """
    tally = Counter(counts)
    if not tally or any(not 0 <= right <= sampled or sampled < 1 for right, sampled in tally):
        raise ConfigError("The probe's counts are not 0 <= right <= sampled with sampled >= 1.", hint="Probe again.")
    a, b = likeliest_beta(tally)
    parts = ((times / tally.total(), Beta(a + k, b + n - k)) for (k, n), times in sorted(tally.items()))
    return PassRate("measured", tuple(parts))
