"""From the steps of two arms to a ratio with its interval, and from two gradients to their distance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import numpy

from lowmem_rl.stats import bootstrap_median
from lowmem_rl_bench.step.round_robin import ArmResult, Step, Weights

Clock = Literal["wall", "cpu"]

_UNDISTURBED = 0.9
"""An arm must have had its core for this share of the wall time, so that wall time counts."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long the other takes: the median over rounds, and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Ratio":
        interval = bootstrap_median(ratios)
        return cls(median(ratios), interval.low, interval.high, len(ratios))

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def clock_of(arms: Mapping[str, Sequence[Step]], *, is_gpu: bool) -> Clock:
    """Returns the clock of the ratios: wall time, which users feel.

    On a CPU every arm computes on one thread, so wall and CPU time are equal unless something else uses the core. If
    that took more than a tenth, CPU time is the fair one.
    """
    shares = [median(step["cpu"] / step["wall"] for step in steps) for steps in arms.values()]
    return "wall" if is_gpu or min(shares) >= _UNDISTURBED else "cpu"


def ratio_of(other: Sequence[Step], ours: Sequence[Step], clock: Clock) -> Ratio:
    """Returns the ratio over rounds: in each, both took the same step, one after the other."""
    return Ratio.of([theirs[clock] / mine[clock] for theirs, mine in zip(other, ours, strict=True)])


def distance(found: Weights, reference: Weights) -> float:
    """Returns max |g - g'| / max |g'| over all elements. Raises `ValueError` if the names differ."""
    if set(found) != set(reference):
        raise ValueError(f"the adapters differ in {sorted(set(found) ^ set(reference))[:3]}")
    difference = max(float(numpy.abs(found[name] - reference[name]).max()) for name in reference)
    return difference / max(float(numpy.abs(part).max()) for part in reference.values())


def summary(steps: Sequence[Step], ended: ArmResult, clock: Clock) -> dict[str, Any]:
    """Returns an arm's timed steps as medians, and all of them."""
    last, clocks = steps[-1], ("wall", "cpu")
    seconds = {name: median(step[name] for step in steps) for name in clocks}
    return {
        "seconds": seconds,
        "fastest_seconds": {name: min(step[name] for step in steps) for name in clocks},
        "phases": {
            phase: {name: median(step["phases"][phase][name] for step in steps) for name in clocks}
            for phase in last["phases"]
        },
        "useful_tokens": last["useful_tokens"],
        "useful_tokens_per_s": last["useful_tokens"] / seconds[clock],
        "sampled": last["sampled"],
        "updated": last["updated"],
        "peak_bytes": ended.peak_bytes,
        "engine": ended.engine,
        "rounds": [{name: step[name] for name in clocks} for step in steps],
    }
