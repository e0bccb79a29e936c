"""From the runs of a study to what may be said of each arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from lowmem_rl.errors import RunDirError
from lowmem_rl.experiment.interquartile import InterquartileMean, interquartile_mean
from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.seed_statistics import (
    SeedDifference,
    crossed_interval,
    seed_difference,
    seen_spread,
    smallest_gain,
)
from lowmem_rl.experiment.study import Study
from lowmem_rl.stats import SIGNIFICANT, Interval, holm

Word = Literal["baseline", "better", "worse", "no worse", "not distinguishable", "not known yet"]
Values = Mapping[tuple[str, int], float]
"""The metric by arm and seed, of one task."""
ENOUGH_SEEDS = 5
"""With fewer, the exact test over seeds cannot come near 5 %: it is at least 2 / 2^n."""


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """One arm on one task, over the seeds that have ended."""

    task: str
    arm: str
    num_seeds: int
    value: float | None
    """Mean of the metric over seeds."""
    interval: Interval | None
    """95 %, for other seeds and other items, of a reward for other seeds; None for a single seed or without items."""
    difference: SeedDifference | None = None
    """From the baseline; None for the baseline itself, and if no seed has ended for both."""
    p_value: float | None = None
    """Adjusted for all arms and tasks (Holm)."""
    word: Word = "not known yet"
    interquartile: InterquartileMean | None = None
    """Of the metric over seeds."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All arms, in the order of the study; interim until each planned run has ended."""

    arms: tuple[ArmVerdict, ...]
    is_interim: bool
    failed: tuple[Outcome, ...]
    over_tasks: Mapping[str, InterquartileMean]
    """By arm, over all tasks and seeds; empty for a single task, and for rewards: theirs need no common scale."""
    spread: float | None
    """Standard deviation of a run's metric within one method, as the seeds show it; None before two have ended."""

    def of(self, task: str) -> tuple[ArmVerdict, ...]:
        """Returns the arms of one task."""
        return tuple(arm for arm in self.arms if arm.task == task)


def compare_arms(study: Study, outcomes: Sequence[Outcome]) -> Verdicts:
    """Compares each arm with the baseline. A run that failed counts with what it reached (intention to treat).

    Raises `RunDirError` if runs of one task were evaluated on different items.
    """
    ended = [outcome for outcome in outcomes if outcome.status in ("done", "failed")]
    found, by_task = list[ArmVerdict](), dict[str, Values]()
    for task in study.tasks:
        of_task = [one for one in ended if one.task == task]
        _check_items(of_task)
        values = {(one.arm, one.seed): value for one in of_task if (value := _value(one, of_task, study)) is not None}
        found += [_arm(study, task, arm.name, values, of_task) for arm in study.arms]
        by_task[task] = values
    tested = [one for one in found if one.difference and one.difference.p_value is not None]
    adjusted = holm([one.difference.p_value for one in tested if one.difference and one.difference.p_value is not None])
    p_values = {(one.task, one.arm): p_value for one, p_value in zip(tested, adjusted, strict=True)}
    arms = tuple(
        replace(one, word="baseline")
        if one.arm == study.baseline
        else _with_word(one, p_values.get((one.task, one.arm)), study.margin)
        for one in found
    )
    planned = len(study.seeds) * len(study.arms) * len(study.tasks)
    return Verdicts(
        arms,
        is_interim=len(ended) < planned,
        failed=tuple(one for one in ended if one.status == "failed"),
        over_tasks=_over_tasks(study, by_task),
        spread=seen_spread(one.difference for one in found if one.difference),
    )


def smallest_found(study: Study, spread: float) -> float | None:
    """Returns the smallest true gain that four of five such studies find; None for a study of one seed."""
    return smallest_gain(spread, len(study.seeds), SIGNIFICANT / study.num_comparisons)


def _over_tasks(study: Study, by_task: Mapping[str, Values]) -> dict[str, InterquartileMean]:
    if len(study.tasks) == 1 or study.metric == "reward":
        return {}
    found = {}
    for arm in study.arms:
        values = [[value for (name, _), value in of_task.items() if name == arm.name] for of_task in by_task.values()]
        if mean := interquartile_mean(values):
            found[arm.name] = mean
    return found


def _check_items(outcomes: Sequence[Outcome]) -> None:
    """Raises `RunDirError` for a run on items that the run with most of them lacks, or has with other answers.

    A run that failed may have been evaluated on a part of them: evaluations during a run take the first few.
    """
    most = max(outcomes, key=lambda one: len(one.items), default=None)
    for one in outcomes:
        if most and not (one.items.keys() <= most.items.keys() and _have_same_answers(one, most)):
            first, other = (f"{outcome.arm}, seed {outcome.seed}" for outcome in (most, one))
            what = f"Task {one.task}: {other} was evaluated on other items than {first}."
            raise RunDirError(what, hint="The data has changed while the study ran: run it again in a new directory.")


def _have_same_answers(one: Outcome, other: Outcome) -> bool:
    """An id may be no more than the number of a row; answers that were not kept are not compared."""
    shared = one.answers.keys() & other.answers.keys()
    return all(one.answers[item] == other.answers[item] for item in shared)


def _value(outcome: Outcome, of_task: Sequence[Outcome], study: Study) -> float | None:
    """Returns a run's metric; of one that never measured it, the base's, as the other runs of its task know it."""
    if (value := outcome.value(study.metric)) is not None:
        return value
    bases = [one.base for one in of_task if one.base is not None]
    return fmean(bases) if bases else None


def _arm(study: Study, task: str, arm: str, values: Values, of_task: Sequence[Outcome]) -> ArmVerdict:
    seeds = [seed for seed in study.seeds if (arm, seed) in values]
    runs = {(one.arm, one.seed): one for one in of_task}
    known = [one.items for one in of_task if one.arm == arm and one.items]
    shared = sorted(set(known[0]).intersection(*known)) if known else []
    measured = [values[arm, seed] for seed in seeds]
    items = [[of_run[item] for item in shared] for of_run in known]
    if study.metric == "reward":  # has no items
        items = [[value] for value in measured]
    difference = None
    if arm != study.baseline:
        paired = [
            _gain(runs[arm, seed], runs[study.baseline, seed], values)
            for seed in seeds
            if (study.baseline, seed) in values
        ]
        difference = seed_difference(paired) if paired else None
    return ArmVerdict(
        task=task,
        arm=arm,
        num_seeds=len(seeds),
        value=fmean(measured) if measured else None,
        interval=crossed_interval(items) if len(items) > 1 and items[0] else None,
        difference=difference,
        interquartile=interquartile_mean([measured]),
    )


def _gain(one: Outcome, base: Outcome, values: Values) -> float:
    """Returns how much more a run has than the baseline's; if it has part of the items, on those that both have."""
    shared = one.items.keys() & base.items.keys()
    if shared and one.items.keys() != base.items.keys():
        return fmean(one.items[item] - base.items[item] for item in shared)
    return values[one.arm, one.seed] - values[base.arm, base.seed]


def _with_word(verdict: ArmVerdict, p_value: float | None, margin: float) -> ArmVerdict:
    difference = verdict.difference
    if difference is None or p_value is None:
        return verdict
    word: Word = "not distinguishable"
    if p_value < SIGNIFICANT:
        word = "better" if difference.gain > 0 else "worse"
    elif difference.lower_bound is not None and difference.lower_bound > -margin:
        word = "no worse"
    return replace(verdict, p_value=p_value, word=word)
