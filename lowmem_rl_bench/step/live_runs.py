"""Time to a reward that was fixed before: real sampling, the same seeds and data in every arm.

In float32 there is a proof besides: the plain arm samples with the random numbers that our engine draws for each row
and place, so both must learn along one curve.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl_bench.step.arm_worker import ArmTask
from lowmem_rl_bench.step.arms import OURS, TRL, TRL_FAIR, Arm
from lowmem_rl_bench.step.ratios import Clock, Ratio, clock_of
from lowmem_rl_bench.step.replays import FP32, Bench
from lowmem_rl_bench.step.round_robin import ArmResult, Step, alive, take_turns

SEEDS = (0, 1, 2, 3, 4)
TARGET_SHARE = 0.75
"""Of the most a completion can earn: fixed before any run."""
WINDOW = 5
"""Steps of the moving average."""
ALIKE = 1e-6
"""Difference of two mean rewards that is rounding: one completion more or less right is far above."""
OTHERS = (TRL_FAIR, TRL)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How an arm learnt with one seed: the step that met the target, or None, and what its steps took."""

    step: int | None
    seconds: Mapping[Clock, float]
    rewards: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {"step": self.step, "seconds": dict(self.seconds), "rewards": list(self.rewards)}


def target_of(config: RunConfig) -> float:
    """Returns the reward to reach."""
    return TARGET_SHARE * sum(weight for weight in config.rewards.values() if weight > 0)


def has_reached(rewards: Sequence[float], target: float) -> bool:
    """Says whether the mean of the last steps is at the target."""
    return len(rewards) >= WINDOW and fmean(rewards[-WINDOW:]) >= target


def run_live(bench: Bench, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Returns the time to the target by arm and seed, and its ratio to ours."""
    target, arms = target_of(bench.config), (OURS, *OTHERS)
    config, examples = live_config(bench.config), _write_examples(bench)
    courses: dict[str, list[LearningCurve]] = {arm.name: [] for arm in arms}
    steps: dict[str, list[Step]] = {arm.name: [] for arm in arms}
    with alive(arms, config, bench.device, bench.folder) as processes:
        for seed in seeds:
            bench.tell(f"live, seed {seed}: to a reward of {target:.2f} or {config.grpo.steps} steps")
            ended = take_turns(
                processes,
                _tasks(arms, examples, seed),
                config.grpo.steps,
                until=lambda done: has_reached([step["reward"] for step in done], target),
            )
            for name, arm in ended.items():
                courses[name].append(_course(arm, target))
                steps[name] += arm.steps
    clock = clock_of(steps, is_gpu=bench.device.is_gpu)
    return {
        "target": target,
        "window": WINDOW,
        "most_steps": config.grpo.steps,
        "seeds": list(seeds),
        "clock": clock,
        "courses": {name: [course.to_json() for course in found] for name, found in courses.items()},
        "reached_share": {name: fmean(course.step is not None for course in found) for name, found in courses.items()},
        "ratios": {arm.name: sooner(courses[arm.name], courses[OURS.name], clock) for arm in OTHERS},
    }


def sooner(other: Sequence[LearningCurve], ours: Sequence[LearningCurve], clock: Clock) -> dict[str, Any] | None:
    """Returns how many times as long the other takes to the target, over the seeds where ours reaches it.

    An arm that never does counts with the time it was given: its ratio is at least that. None where ours never does.
    """
    pairs = [(a, b) for a, b in zip(other, ours, strict=True) if b.step is not None]
    ratios = [theirs.seconds[clock] / mine.seconds[clock] for theirs, mine in pairs]
    return Ratio.of(ratios).to_json() | {"by_seed": ratios} if ratios else None


def same_noise(bench: Bench, seed: int = 0) -> dict[str, Any]:
    """Returns the reward curves of ours and of plain TRL in float32, both with our engine's random numbers."""
    arms = (OURS, TRL_FAIR)
    config, examples = with_overrides(live_config(bench.config), FP32), _write_examples(bench)
    bench.tell(f"live in float32 with the same noise: {config.grpo.steps} steps")
    with alive(arms, config, replace(bench.device, dtype="float32"), bench.folder) as processes:
        ended = take_turns(processes, _tasks(arms, examples, seed, noise=True), config.grpo.steps)
    curves = {name: [step["reward"] for step in arm.steps] for name, arm in ended.items()}
    gaps = [abs(a - b) for a, b in zip(*curves.values(), strict=True)]
    return {
        "curves": curves,
        "largest_difference": max(gaps),
        "steps_alike": next((number for number, gap in enumerate(gaps) if gap > ALIKE), len(gaps)),
        "coincide": max(gaps) <= ALIKE,
    }


def live_config(config: RunConfig) -> RunConfig:
    """Returns the run as the preset has it, without what would part the arms."""
    return with_overrides(config, {"adapter.dropout": 0.0, "logging.report_to": ()})


def _write_examples(bench: Bench) -> Path:
    path = bench.folder / "examples.json"
    path.write_text(json.dumps([asdict(example) for example in bench.examples]), encoding="utf-8")
    return path


def _tasks(arms: Sequence[Arm], examples: Path, seed: int, *, noise: bool = False) -> dict[str, ArmTask]:
    written = str(examples)
    return {
        arm.name: ArmTask(str(examples.with_name(arm.name)), {}, seed=seed, examples=written, noise=noise)
        for arm in arms
    }


def _course(ended: ArmResult, target: float) -> LearningCurve:
    rewards = tuple(step["reward"] for step in ended.steps)
    seconds: dict[Clock, float] = {
        "wall": sum(step["wall"] for step in ended.steps),
        "cpu": sum(step["cpu"] for step in ended.steps),
    }
    return LearningCurve(len(rewards) if has_reached(rewards, target) else None, seconds, rewards)
