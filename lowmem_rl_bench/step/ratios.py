"""From the steps of two arms to a ratio with its interval, and from two gradients to their distance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import numpy

from lowmem_rl.stats import Interval, bootstrap_median
from lowmem_rl_bench.step.round_robin import ArmResult, Step, Weights

Clock = Literal["wall", "cpu"]

UNDISTURBED = 0.9
"""Share of its wall clock that an arm must have had a core to itself for the wall to count."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long the other takes: the median over rounds, and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Ratio":
        interval: Interval = bootstrap_median(ratios)
        return cls(median(ratios), interval.low, interval.high, len(ratios))

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def clock_of(arms: Mapping[str, Sequence[Step]], *, is_gpu: bool) -> Clock:
    """Returns the clock that ratios are read from: the wall's, which users feel.

    On a CPU, where every arm computes on one thread, wall and CPU time are the same unless something else takes the
    core away. Where that took more than a tenth, the process's CPU time is the fair one.
    """
    shares = [median(step["cpu"] / step["wall"] for step in steps) for steps in arms.values()]
    return "wall" if is_gpu or min(shares) >= UNDISTURBED else "cpu"


def ratio_of(other: Sequence[Step], ours: Sequence[Step], clock: Clock) -> Ratio:
    """Returns the ratio over rounds: the same step of both, taken one after the other."""
    return Ratio.of([theirs[clock] / mine[clock] for theirs, mine in zip(other, ours, strict=True)])


def distance(found: Weights, reference: Weights) -> float:
    """Returns the largest difference of any element over the largest element: max |g - g'| / max |g'|."""
    if set(found) != set(reference):
        raise ValueError(f"the adapters differ in {sorted(set(found) ^ set(reference))[:3]}")
    difference = max(float(numpy.abs(found[name] - reference[name]).max()) for name in reference)
    return difference / max(float(numpy.abs(part).max()) for part in reference.values())


def summary(ended: ArmResult, warmup: int, clock: Clock) -> dict[str, Any]:
    """Returns an arm's timed steps as medians, and all of them."""
    steps = ended.steps[warmup:]
    seconds = median(step[clock] for step in steps)
    last = steps[-1]
    return {
        "seconds": {name: median(step[name] for step in steps) for name in ("wall", "cpu")},
        "fastest_seconds": {name: min(step[name] for step in steps) for name in ("wall", "cpu")},
        "phases": {
            phase: {name: median(step["phases"][phase][name] for step in steps) for name in ("wall", "cpu")}
            for phase in last["phases"]
        },
        "useful_tokens": last["useful_tokens"],
        "useful_tokens_per_s": last["useful_tokens"] / seconds,
        "sampled": last["sampled"],
        "updated": last["updated"],
        "peak_bytes": ended.peak_bytes,
        "engine": ended.engine,
        "rounds": [{name: step[name] for name in ("wall", "cpu")} for step in steps],
    }
