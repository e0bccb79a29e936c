"""How fast recorded runs learned: the only curves from which a plan may forecast one that has not begun.

The shipped preset tiny-cpu, five seeds on two x86 cores, 2026-11-20 (benchmarks/records/demo-2026-11-20.json). How fast
another model, task or learning rate learns does not follow from them.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, stdev

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig

PRESET = "tiny-cpu"
ROWS = 64
"""Completions of a step."""
# fmt: off
RIGHT = (
    (15, 16, 15, 26, 17, 16, 26, 23, 28, 31, 35, 39, 39, 37, 37, 40, 47, 40, 53, 50,
     45, 53, 55, 59, 54, 55, 58, 55, 60, 56, 61, 62, 56, 60, 58, 62, 56, 59, 61, 59),
    (21, 16, 18, 15, 26, 23, 26, 25, 20, 33, 33, 32, 33, 34, 39, 46, 42, 50, 52, 45,
     54, 55, 49, 57, 55, 57, 54, 54, 59, 56, 54, 53, 62, 58, 59, 62, 62, 56, 58, 57),
    (22, 19, 9, 17, 21, 20, 23, 19, 27, 23, 27, 37, 30, 37, 38, 42, 48, 42, 42, 49,
     54, 55, 48, 53, 55, 59, 54, 57, 59, 56, 58, 57, 58, 60, 60, 55, 63, 53, 60, 61),
    (16, 21, 18, 18, 18, 11, 19, 24, 25, 28, 31, 33, 37, 47, 43, 47, 49, 50, 54, 49,
     45, 51, 56, 60, 52, 58, 55, 57, 61, 57, 54, 57, 56, 60, 59, 59, 60, 60, 61, 60),
    (17, 17, 16, 22, 23, 20, 23, 30, 25, 32, 33, 31, 37, 40, 37, 43, 47, 51, 50, 55,
     58, 56, 58, 54, 53, 53, 60, 59, 57, 59, 61, 59, 59, 58, 59, 56, 58, 55, 58, 57),
)
# fmt: on
"""Right completions of each step, a row a seed."""
STARTS = (15 / ROWS, 22 / ROWS)
"""Accuracies of the first steps, the lowest and the highest: what a probe of this base finds."""
_SMOOTHED = 5
"""A goal is reached when the mean of so many steps is, as `report --goal` counts it."""
_T_90 = {4: 2.353363, 5: 2.131847}
"""By the number of runs, the 95 % quantile of Student's t with one degree of freedom less."""
_CHANGES_NO_CURVE = ("seed", "memory", "eval", "health", "logging")
"""Sections in which runs may differ and still learn as fast, but for rounding and chance."""


def recorded_steps(config: RunConfig, start: float, goal: float) -> tuple[float, float] | None:
    """Returns the steps at which a run as it is written reaches a goal, 90 %; None if no record can tell.

    `start` is the base model's pass rate. Records can tell of the same run, with a start like theirs, and of goals that
    each of them has reached.
    """
    if not STARTS[0] <= start <= STARTS[1] or _learning(config) != _learning(resolve(preset=PRESET).config):
        return None
    found = [step for right in RIGHT if (step := step_reached(right, goal)) is not None]
    return prediction(found) if len(found) == len(RIGHT) else None


def step_reached(right: Sequence[int], goal: float) -> int | None:
    """Returns the step at which a run of `ROWS` completions a step has reached a goal, None if it never has."""
    ends = range(1, len(right) + 1)
    means = (fmean(right[max(0, end - _SMOOTHED) : end]) / ROWS for end in ends)
    return next((end for end, mean in zip(ends, means, strict=True) if mean >= goal), None)


def prediction(steps: Sequence[int]) -> tuple[float, float]:
    """Returns where a further run's step is in 90 % of cases, by four or five others: a t interval of their logarithms.

    Left out one by one at goals of 0.4, 0.45 ... 0.9, 50 of the 55 steps are within the interval of the other four.
    """
    logs = [log(step) for step in steps]
    half = _T_90[len(logs)] * stdev(logs) * sqrt(1 + 1 / len(logs))
    return exp(fmean(logs) - half), exp(fmean(logs) + half)


def _learning(config: RunConfig) -> dict[str, object]:
    return config.model_dump(mode="json", exclude=set(_CHANGES_NO_CURVE))
