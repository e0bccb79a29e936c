"""Time to a reward that was fixed in advance: real sampling, the same seeds and data in every arm.

In float32 there is also a proof: the plain arm samples with the random numbers that our engine draws for each row and
position, so both must follow one learning curve.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.example import Example
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl_bench.step.arms import OURS, TRL, TRL_FAIR, Arm, ArmTask
from lowmem_rl_bench.step.ratios import Clock, Ratio, clock_of
from lowmem_rl_bench.step.replays import FP32, Bench
from lowmem_rl_bench.step.round_robin import ArmResult, Step, alive, take_turns

_SEEDS = (0, 1, 2, 3, 4)
_TARGET_SHARE = 0.75
"""Of the highest possible reward: fixed before any run."""
_WINDOW = 5
"""Steps of the moving average."""
_ROUNDING = 1e-6
"""Largest difference of two mean rewards that is rounding: one correct completion more is far above it."""
_OTHERS = (TRL_FAIR, TRL)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """An arm's training with one seed: the step that reached the target, or None, and the seconds of all steps."""

    step: int | None
    seconds: dict[Clock, float]
    rewards: tuple[float, ...]


def has_reached(rewards: Sequence[float], target: float) -> bool:
    """Returns whether the mean of the last steps is at the target."""
    return len(rewards) >= _WINDOW and fmean(rewards[-_WINDOW:]) >= target


def run_live(bench: Bench) -> dict[str, Any]:
    """Returns the time to the target by arm and seed, and its ratio to ours."""
    target = _TARGET_SHARE * sum(weight for weight in bench.config.rewards.values() if weight > 0)
    arms, config, examples = (OURS, *_OTHERS), _live_config(bench), _write_examples(bench)
    curves: dict[str, list[LearningCurve]] = {arm.name: [] for arm in arms}
    steps: dict[str, list[Step]] = {arm.name: [] for arm in arms}
    with alive(arms, config, bench.device, bench.folder) as processes:
        for seed in _SEEDS:
            bench.report(f"live, seed {seed}: to a reward of {target:.2f} or {config.grpo.steps} steps")
            ended = take_turns(
                processes,
                _tasks(arms, examples, seed),
                config.grpo.steps,
                until=lambda done: has_reached([step["reward"] for step in done], target),
            )
            for name, arm in ended.items():
                curves[name].append(_curve(arm, target))
                steps[name] += arm.steps
    clock = clock_of(steps, is_gpu=bench.device.is_gpu)
    return {
        "target": target,
        "window": _WINDOW,
        "most_steps": config.grpo.steps,
        "seeds": list(_SEEDS),
        "clock": clock,
        "courses": {name: [asdict(curve) for curve in found] for name, found in curves.items()},
        "reached_share": {name: fmean(curve.step is not None for curve in found) for name, found in curves.items()},
        "ratios": {arm.name: time_ratio(curves[arm.name], curves[OURS.name], clock) for arm in _OTHERS},
    }


def time_ratio(other: Sequence[LearningCurve], ours: Sequence[LearningCurve], clock: Clock) -> dict[str, Any] | None:
    """Returns how many times as long the other takes to the target, over the seeds in which ours reaches it.

    An arm that does not reach it counts with the time it had: its ratio is at least that. None if ours never does.
    """
    pairs = [(a, b) for a, b in zip(other, ours, strict=True) if b.step is not None]
    ratios = [theirs.seconds[clock] / mine.seconds[clock] for theirs, mine in pairs]
    return Ratio.of(ratios).to_json() | {"by_seed": ratios} if ratios else None


def same_noise(bench: Bench) -> dict[str, Any]:
    """Returns the reward curves of ours and of plain TRL in float32, both with our engine's random numbers."""
    arms = (OURS, TRL_FAIR)
    config, examples = with_overrides(_live_config(bench), FP32), _write_examples(bench)
    bench.report(f"live in float32 with the same noise: {config.grpo.steps} steps")
    with alive(arms, config, replace(bench.device, dtype="float32"), bench.folder) as processes:
        ended = take_turns(processes, _tasks(arms, examples, seed=0, noise=True), config.grpo.steps)
    curves = {name: [step["reward"] for step in arm.steps] for name, arm in ended.items()}
    gaps = [abs(a - b) for a, b in zip(*curves.values(), strict=True)]
    return {
        "curves": curves,
        "largest_difference": max(gaps),
        "steps_alike": next((number for number, gap in enumerate(gaps) if gap > _ROUNDING), len(gaps)),
        "coincide": max(gaps) <= _ROUNDING,
    }


def _live_config(bench: Bench) -> RunConfig:
    """Returns the preset's run without what would make the arms differ."""
    return with_overrides(bench.config, {"adapter.dropout": 0.0, "logging.report_to": ()})


def _write_examples(bench: Bench) -> Path:
    path = bench.folder / "examples.json"
    path.write_bytes(TypeAdapter(tuple[Example, ...]).dump_json(bench.examples))
    return path


def _tasks(arms: Sequence[Arm], examples: Path, seed: int, *, noise: bool = False) -> dict[str, ArmTask]:
    return {
        arm.name: ArmTask(str(examples.with_name(arm.name)), {}, seed=seed, examples=str(examples), noise=noise)
        for arm in arms
    }


def _curve(ended: ArmResult, target: float) -> LearningCurve:
    rewards = tuple(step["reward"] for step in ended.steps)
    clocks: tuple[Clock, ...] = ("wall", "cpu")
    seconds = {clock: sum(step[clock] for step in ended.steps) for clock in clocks}
    return LearningCurve(len(rewards) if has_reached(rewards, target) else None, seconds, rewards)
