"""Tuning: each arm tries as many settings, on seeds of its own, and the best one is kept for the runs that count."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import fmean

from lowmem_rl.experiment.study import Settings, Study
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader, number

_LAST_SHARE = 4
"""The last quarter of a run's steps decides: what it has learned, on prompts that it trains on."""


def choose_settings(study: Study, out: Path) -> dict[str, int]:
    """Returns by "TASK/ARM" the number of the setting with the highest mean reward; the first one of equal ones.

    The reward is that of training prompts: no held-out item takes part. Raises `RunDirError` for a damaged run.
    """
    return {
        f"{task}/{arm.name}": max(range(len(arm.choices)), key=lambda number: _mean(study, out, task, arm.name, number))
        for task in study.tasks
        for arm in study.arms
        if arm.choices
    }


def at_an_end(study: Study, choices: Mapping[str, int]) -> list[str]:
    """Returns by "TASK/ARM" where tuning chose the lowest or the highest number that it tried: others may be better."""
    return [
        f"{task}/{arm.name}"
        for task in study.tasks
        for arm in study.arms
        if (number := choices.get(f"{task}/{arm.name}")) is not None and _is_extreme(arm.choices, number)
    ]


def _is_extreme(choices: Sequence[Settings], number: int) -> bool:
    for key, chosen in choices[number].items():
        tried = {choice.get(key) for choice in choices}
        numbers = [value for value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(tried) == len(numbers) > 1 and chosen in (min(numbers), max(numbers)):
            return True
    return False


def _mean(study: Study, out: Path, task: str, arm: str, choice: int) -> float:
    seeds = study.tuning.seeds if study.tuning else ()
    return fmean(_late_reward(out / Trial(task, arm, seed, choice).place) for seed in seeds)


def _late_reward(path: Path) -> float:
    """Returns the mean reward of the last quarter of the planned steps, minus infinity for a run without any."""
    reader = RunReader(RunDir(path))
    if not reader.is_run:
        return -inf
    grpo = reader.config.get("grpo")
    steps = number(grpo, "steps") if isinstance(grpo, dict) else None
    after = (steps or 0) * (1 - 1 / _LAST_SHARE)
    rewards = [found for row in reader.metrics if row["step"] > after and (found := number(row, "reward")) is not None]
    return fmean(rewards) if rewards else -inf
