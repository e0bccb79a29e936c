"""How a step's time and memory grow, one factor at a time, and the fitted law.

The law (rollout: a x longest + b x row-steps + c x prompt tokens; update: d x tokens + e x completion tokens + f x
micro-batches; and in both g x pairs in attention, the only part that grows with the square of the length) is fitted
to all points at once, from each step's counts. A point's time is the shortest of its rounds, which are minutes from
each other: other work of the machine can only add to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from lowmem_rl.planning.overrides import divisors
from lowmem_rl_bench.step.arms import OURS, TRL_FAIR, ArmTask
from lowmem_rl_bench.step.bench_workload import WorkloadShape
from lowmem_rl_bench.step.ratios import Clock, clock_of
from lowmem_rl_bench.step.replays import Bench, Protocol, replay_config
from lowmem_rl_bench.step.round_robin import ArmProcess, ArmResult, Step, alive, take_turns

_FACTORS: Mapping[str, Sequence[Any]] = {
    "group_size": (4, 8, 16, 32),
    "completion_tokens": (0.5, 1, 2, 4),
    "prompt_tokens": (0.5, 1, 2, 4),
    "mean_share": (1.0, 0.5, 0.25),
    "dead_share": (0.0, 0.25, 0.5, 0.75),
}
"""Values of each factor; lengths as multiples of the replay's."""
_PASSES = 3
"""How often all points are visited."""
_WARMUP, _ROUNDS = 1, 2
"""Steps of a visit."""
LAW = {
    "rollout": tuple(("sampled", name) for name in ("decode_steps", "row_steps", "prefill_tokens", "attended")),
    "update": tuple(("updated", name) for name in ("tokens", "completion_tokens", "micro_batches", "attended")),
}
"""The counts that make up the time of each phase."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One shape of the sweep."""

    factor: str
    value: float
    shape: WorkloadShape


def points(base: WorkloadShape) -> Iterator[SweepPoint]:
    """Yields the shapes, one factor at a time."""
    for factor, values in _FACTORS.items():
        for value in values:
            scaled = round(getattr(base, factor) * value) if factor.endswith("_tokens") else value
            yield SweepPoint(factor, scaled, replace(base, **{factor: scaled}))


def sweep(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """Returns every point's time for ours and for plain TRL, the fitted laws, and the memory.

    The wave and the micro-batch stay as at the base shape: memory must not grow with the group.
    """
    arms, shapes = (OURS, TRL_FAIR), tuple(points(bench.shape))
    config = replay_config(bench.config, bench.shape, _WARMUP + _ROUNDS)
    with alive(arms, config, bench.device, bench.folder) as processes:
        passes = [[_visit(bench, processes, point, protocol.seed) for point in shapes] for _ in range(_PASSES)]
    visits = {arm.name: [[visit[arm.name] for visit in at] for at in zip(*passes, strict=True)] for arm in arms}
    timed = {name: [step for at in found for step in _timed(at)] for name, found in visits.items()}
    clock = clock_of(timed, is_gpu=bench.device.is_gpu)
    fastest = {name: [_fastest(at, clock) for at in found] for name, found in visits.items()}
    laws = {name: {phase: fit(steps, phase, clock) for phase in LAW} for name, steps in fastest.items()}
    rows = [
        _row(point, {name: _figures(steps[number], laws[name], clock) for name, steps in fastest.items()})
        for number, point in enumerate(shapes)
    ]
    return {"clock": clock, "laws": laws, "points": rows}


def _visit(bench: Bench, processes: Mapping[str, ArmProcess], point: SweepPoint, seed: int) -> dict[str, ArmResult]:
    bench.report(f"sweep: {point.factor} = {point.value:g}")
    _, path = bench.workload(point.shape, f"sweep-{point.factor}-{point.value:g}", seed)
    shape, base = point.shape, bench.shape.prompts * bench.shape.group_size
    rows = shape.prompts * shape.group_size
    settings = {
        "grpo.group_size": shape.group_size,
        "grpo.max_completion_tokens": shape.completion_tokens,
        "grpo.max_prompt_tokens": 2 * shape.prompt_tokens,
        "memory.rollout_rows": min(rows, base),
        "memory.micro_batch": divisors(rows, bench.config.micro_batch)[-1],
    }
    tasks = {name: ArmTask(str(path.with_name(name)), settings, workload=str(path)) for name in processes}
    return take_turns(processes, tasks, _WARMUP + _ROUNDS)


def _timed(visits: Sequence[ArmResult]) -> list[Step]:
    return [step for visit in visits for step in visit.steps[_WARMUP:]]


def _fastest(visits: Sequence[ArmResult], clock: Clock) -> Step:
    """Returns one step of a point: its counts, equal in every round, each phase's shortest time, and the peak."""
    steps = _timed(visits)
    phases = {phase: {clock: min(step["phases"][phase][clock] for step in steps)} for phase in LAW}
    return steps[-1] | {"phases": phases, "peak_bytes": max(visit.peak_bytes for visit in visits)}


def fit(steps: Sequence[Step], phase: str, clock: Clock) -> dict[str, Any]:
    """Returns the law of a phase: seconds for each of its counts, none negative, and R^2 over the steps."""
    counts = numpy.array([[step[part][name] for part, name in LAW[phase]] for step in steps], dtype=float)
    seconds = numpy.array([step["phases"][phase][clock] for step in steps])
    factors = _non_negative(counts, seconds)
    residual = seconds - counts @ factors
    r2 = 1 - float((residual**2).sum() / ((seconds - seconds.mean()) ** 2).sum())
    return {"seconds_per": {name: float(f) for (_, name), f in zip(LAW[phase], factors, strict=True)}, "r2": r2}


def _non_negative(counts: numpy.ndarray, seconds: numpy.ndarray) -> numpy.ndarray:
    """Returns least-squares factors of `counts` (steps, factors), leaving out the most negative one until none is."""
    used = list(range(counts.shape[1]))
    while True:
        factors = numpy.zeros(counts.shape[1])
        factors[used] = numpy.linalg.lstsq(counts[:, used], seconds, rcond=None)[0]
        if factors.min() >= 0:
            return factors
        used.remove(int(factors.argmin()))


def _row(point: SweepPoint, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    ours, theirs = arms[OURS.name], arms[TRL_FAIR.name]
    return {
        "factor": point.factor,
        "value": point.value,
        "arms": arms,
        "ratio": theirs["seconds"] / ours["seconds"],
        "predicted_ratio": theirs["by_law"] / ours["by_law"],
    }


def _figures(step: Step, laws: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Returns the time of rollout and update, measured and by the law, and the peak."""
    return {
        "seconds": sum(step["phases"][phase][clock] for phase in LAW),
        "by_law": sum(
            laws[phase]["seconds_per"][name] * step[part][name] for phase in LAW for part, name in LAW[phase]
        ),
        "peak_bytes": step["peak_bytes"],
    }
