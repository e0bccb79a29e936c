"""How a step's time and memory grow: one thing at a time, and the law behind it.

The law (rollout: a x longest + b x row-steps + c x prompt tokens; update: d x tokens + e x completion tokens + f x
micro-batches; and in both g x what attention compares, the one part that grows with the square of the length) is
fitted to all points at once, from what each step was counted to do. A point's time is the least of its rounds, which
lie minutes apart: what else a machine does can only add to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from lowmem_rl.planning.overrides import divisors
from lowmem_rl_bench.step.arm_worker import ArmTask
from lowmem_rl_bench.step.arms import OURS, TRL_FAIR, Arm
from lowmem_rl_bench.step.bench_workload import WorkloadShape
from lowmem_rl_bench.step.ratios import Clock, clock_of
from lowmem_rl_bench.step.replays import Bench, Protocol, replay_config
from lowmem_rl_bench.step.round_robin import ArmProcess, ArmResult, Step, alive, take_turns

FACTORS: Mapping[str, Sequence[Any]] = {
    "group_size": (4, 8, 16, 32),
    "completion_tokens": (0.5, 1, 2, 4),
    "prompt_tokens": (0.5, 1, 2, 4),
    "mean_share": (1.0, 0.5, 0.25),
    "dead_share": (0.0, 0.25, 0.5, 0.75),
}
"""What is swept; lengths as multiples of the replay's."""
PASSES = 3
"""Times that all points are visited."""
WARMUP, ROUNDS = 1, 2
"""Steps of a visit."""
LAW = {
    "rollout": tuple(("sampled", name) for name in ("decode_steps", "row_steps", "prefill_tokens", "attended")),
    "update": tuple(("updated", name) for name in ("tokens", "completion_tokens", "micro_batches", "attended")),
}
"""By phase, the counts that its time is a sum of."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One shape of the sweep."""

    factor: str
    value: float
    shape: WorkloadShape


def points(base: WorkloadShape) -> Iterator[SweepPoint]:
    """Yields the shapes, one factor at a time."""
    for factor, values in FACTORS.items():
        for value in values:
            scaled = round(getattr(base, factor) * value) if factor.endswith("_tokens") else value
            yield SweepPoint(factor, scaled, replace(base, **{factor: scaled}))


def sweep(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """Returns every point's time for ours and for plain TRL, the fitted laws, and the memory over the group size.

    The wave and the micro-batch stay what they are at the base shape: memory must not grow with the group.
    """
    arms, shapes = (OURS, TRL_FAIR), tuple(points(bench.shape))
    config = replay_config(bench.config, bench.shape, WARMUP + ROUNDS)
    with alive(arms, config, bench.device, bench.folder) as processes:
        passes = [[_visit(bench, processes, point, protocol.seed) for point in shapes] for _ in range(PASSES)]
    found = [[_timed(visits, arm) for visits in zip(*passes, strict=True)] for arm in arms]
    timed = {arm.name: [step for steps, _ in seen for step in steps] for arm, seen in zip(arms, found, strict=True)}
    clock = clock_of(timed, is_gpu=bench.device.is_gpu)
    least = {arm.name: [_least(*at, clock) for at in seen] for arm, seen in zip(arms, found, strict=True)}
    laws = {name: {phase: fit(steps, phase, clock) for phase in LAW} for name, steps in least.items()}
    rows = [
        _row(point, {name: steps[number] for name, steps in least.items()}, laws, clock)
        for number, point in enumerate(shapes)
    ]
    return {"clock": clock, "laws": laws, "points": rows}


def _visit(bench: Bench, processes: Mapping[str, ArmProcess], point: SweepPoint, seed: int) -> dict[str, ArmResult]:
    bench.tell(f"sweep: {point.factor} = {point.value:g}")
    _, path = bench.workload(point.shape, f"sweep-{point.factor}-{point.value:g}", seed)
    settings = _settings(bench, point.shape)
    tasks = {name: ArmTask(str(path.with_name(name)), settings, workload=str(path)) for name in processes}
    return take_turns(processes, tasks, WARMUP + ROUNDS)


def _settings(bench: Bench, shape: WorkloadShape) -> dict[str, Any]:
    rows, base = shape.prompts * shape.group_size, bench.shape.prompts * bench.shape.group_size
    return {
        "grpo.group_size": shape.group_size,
        "grpo.max_completion_tokens": shape.completion_tokens,
        "grpo.max_prompt_tokens": 2 * shape.prompt_tokens,
        "memory.rollout_rows": min(rows, base),
        "memory.micro_batch": divisors(rows, bench.config.micro_batch)[-1],
    }


def _timed(visits: Sequence[Mapping[str, ArmResult]], arm: Arm) -> tuple[list[Step], int]:
    """Returns an arm's timed steps of one point, and the most memory it held there."""
    ended = [visit[arm.name] for visit in visits]
    return [step for one in ended for step in one.steps[WARMUP:]], max(one.peak_bytes for one in ended)


def _least(steps: Sequence[Step], peak_bytes: int, clock: Clock) -> Step:
    """Returns one step of a point: its counts, the same in every round, each phase's least time, and the memory."""
    phases = {phase: {clock: min(step["phases"][phase][clock] for step in steps)} for phase in LAW}
    return steps[-1] | {"phases": phases, "peak_bytes": peak_bytes}


def fit(steps: Sequence[Step], phase: str, clock: Clock) -> dict[str, Any]:
    """Returns the law of a phase: seconds for each of its counts, none below zero, and R^2 over the steps."""
    counts = numpy.array([[step[part][name] for part, name in LAW[phase]] for step in steps], dtype=float)
    seconds = numpy.array([step["phases"][phase][clock] for step in steps])
    factors = _non_negative(counts, seconds)
    residual = seconds - counts @ factors
    r2 = 1 - float((residual**2).sum() / ((seconds - seconds.mean()) ** 2).sum())
    return {"seconds_per": {name: float(f) for (_, name), f in zip(LAW[phase], factors, strict=True)}, "r2": r2}


def _non_negative(counts: numpy.ndarray, seconds: numpy.ndarray) -> numpy.ndarray:
    """Least squares whose factors are never negative: the most negative one is left out until none is."""
    used = list(range(counts.shape[1]))
    while True:
        factors = numpy.zeros(counts.shape[1])
        factors[used] = numpy.linalg.lstsq(counts[:, used], seconds, rcond=None)[0]
        if factors.min() >= 0:
            return factors
        used.remove(int(factors.argmin()))


def _row(point: SweepPoint, steps: Mapping[str, Step], laws: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    arms = {name: _figures(step, laws[name], clock) for name, step in steps.items()}
    ours, theirs = arms[OURS.name], arms[TRL_FAIR.name]
    return {
        "factor": point.factor,
        "value": point.value,
        "arms": arms,
        "ratio": theirs["seconds"] / ours["seconds"],
        "predicted_ratio": theirs["by_law"] / ours["by_law"],
    }


def _figures(step: Step, laws: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Returns the time of sampling and learning, measured and by the law, and the memory."""
    return {
        "seconds": sum(step["phases"][phase][clock] for phase in LAW),
        "by_law": sum(_by_law(step, phase, laws[phase]) for phase in LAW),
        "peak_bytes": step["peak_bytes"],
    }


def _by_law(step: Step, phase: str, law: Mapping[str, Any]) -> float:
    return sum(law["seconds_per"][name] * step[part][name] for part, name in LAW[phase])
