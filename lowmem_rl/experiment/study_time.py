"""How long a study takes, estimated before it runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lowmem_rl.entrypoints.preflight import plan_anywhere
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.trial_configs import ArmPlan, resolve_trial
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.planning.step_time import SecondsRange


@dataclass(frozen=True, slots=True)
class StudyTime:
    """Seconds of one card for all runs, one after the other: steps and evaluations, without loading and retries."""

    runs: SecondsRange
    tuning: SecondsRange

    @property
    def total(self) -> SecondsRange:
        return _sum([self.runs, self.tuning])


def num_tuning_runs(study: Study) -> int:
    """Returns how many runs choose the arms' settings."""
    seeds = len(study.tuning.seeds) if study.tuning else 0
    return sum(len(arm.choices) for arm in study.arms) * len(study.tasks) * seeds


def study_time(study: Study, plans: Sequence[ArmPlan]) -> StudyTime | None:
    """Returns the time of a study whose plans are those of `check_study`; None on a CPU, or a card of unknown speed.

    Runs whose setting is still to be tuned count with the first one.
    """
    runs = [plan.plan.time for plan in plans]
    tuning = [plan_anywhere(resolve_trial(study, trial, {})).time for trial in _first_seed_of_tuning(study)]
    known = [time.run for time in (*runs, *tuning) if time is not None]
    if len(known) < len(runs) + len(tuning):
        return None
    seeds = len(study.tuning.seeds) if study.tuning else 0
    return StudyTime(_sum(known[: len(runs)], len(study.seeds)), _sum(known[len(runs) :], seeds))


def _first_seed_of_tuning(study: Study) -> Iterable[Trial]:
    seeds = study.tuning.seeds[:1] if study.tuning else ()
    arms = [(task, arm) for task in study.tasks for arm in study.arms]
    return [Trial(task, arm.name, seed, n) for seed in seeds for task, arm in arms for n in range(len(arm.choices))]


def _sum(ranges: Sequence[SecondsRange], times: int = 1) -> SecondsRange:
    return SecondsRange(times * sum(one.low for one in ranges), times * sum(one.high for one in ranges))
