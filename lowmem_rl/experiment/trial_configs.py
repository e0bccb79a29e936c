"""Every run of a study as a resolved configuration, and what is checked of it before any of them starts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, flatten, resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.entrypoints.data_check import check_data
from lowmem_rl.entrypoints.preflight import check_settings, plan_anywhere
from lowmem_rl.errors import ConfigError, LowMemError
from lowmem_rl.evaluation.eval_set import held_out_examples
from lowmem_rl.experiment.study import Arm, Settings, Study
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.grpo.prompt_order import rates_of
from lowmem_rl.planning.plan import Plan
from lowmem_rl.tasks.task_registry import load_task

Choices = Mapping[str, int]
"""By "TASK/ARM", the number of the setting that tuning chose; of an arm that it lacks, the first."""
_TUNING = {"eval.examples": 1, "eval.every": 0, "eval.samples": 0}
"""Tuning reads the rewards of training prompts: held-out items stay unseen until the choice is made."""


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """What one arm does on one task, and what a run of it needs."""

    task: str
    arm: str
    differences: Settings
    """Keys whose values are others than the baseline's on the same task; what tuning chooses is left out."""
    plan: Plan


def settings_of(study: Study, trial: Trial, choices: Choices) -> dict[str, object]:
    """Returns all settings of a trial by dotted key, over the preset."""
    arm = study.arm(trial.arm)
    number = choices.get(f"{trial.task}/{trial.arm}", 0) if trial.choice is None else trial.choice
    tuned = arm.choices[number] if arm.choices else {}
    settings = {**study.common, **study.tasks[trial.task], **arm.settings, **tuned}
    if trial.choice is not None and study.tuning:
        settings |= _TUNING | ({"grpo.steps": study.tuning.steps} if study.tuning.steps else {})
    return settings | {"seed": trial.seed}


def resolve_trial(study: Study, trial: Trial, choices: Choices) -> ResolvedConfig:
    """Returns a trial's configuration. Raises `ConfigError`, with the arm and the task, for whatever is wrong."""
    layer = ConfigLayer(f"study {study.name}, arm {trial.arm}", settings_of(study, trial, choices))
    return resolve(preset=study.preset, flags=[layer])


def check_study(study: Study, *, allow_code: bool = False) -> list[ArmPlan]:
    """Returns a plan for each task and arm, in the order of the file; each setting that tuning tries is checked, too.

    Raises `ConfigError`, `TaskError` or `SetupError` for the first run that could not start. Whether the runs fit is
    for the caller to ask of the plans.
    """
    for arm in study.arms:
        if any("seed" in settings for settings in (study.common, *study.tasks.values(), arm.settings, *arm.choices)):
            raise ConfigError(f"Arm {arm.name}: a study sets seed itself.", hint="Name the seeds in [study] seeds.")
    plans = [plan for task in study.tasks for plan in _check_task(study, task, allow_code=allow_code)]
    for plan in plans:
        _check_comparable(study, plan, next(one for one in plans if (one.task, one.arm) == (plan.task, study.baseline)))
    if study.match != "steps" and study.metric != "reward":
        for plan in plans:
            if not plan.plan.config.eval.every:
                what = f"Arm {plan.arm}: match = {study.match!r} compares evaluations during the run, and it has none."
                raise ConfigError(what, hint='Set "eval.every" in [study.set].')
    return plans


def _check_comparable(study: Study, plan: ArmPlan, baseline: ArmPlan) -> None:
    """Raises `ConfigError` for an arm whose metric is of something else than the baseline's."""
    config, other = plan.plan.config, baseline.plan.config
    if study.metric == "reward":
        if config.rewards != other.rewards:
            what = f"Arm {plan.arm}: its rewards are not those of {baseline.arm}, and metric = 'reward' compares them."
            raise ConfigError(what, hint='Give both the same rewards, or decide by metric = "pass_at_1".')
    elif (items := _held_out(config, other)) != _held_out(other, config):
        what = f"Arm {plan.arm}: it is evaluated on {len(items)} other items than {baseline.arm}."
        hint = "Give all arms one eval.examples and one task; several tasks are [tasks.NAME]."
        raise ConfigError(what, hint=hint)


def _held_out(config: RunConfig, other: RunConfig) -> list[str]:
    """Returns the ids of the held-out items of a run; none, unread, if another's are the same or not on this disk."""
    task, known = load_task(config.task), load_task(other.task)
    are_same = (config.task, config.eval.examples) == (other.task, other.eval.examples)
    if are_same or not all(getattr(one, "is_on_disk", True) for one in (task, known)):
        return []
    return [example.id for example in held_out_examples(task, config.task, config.eval.examples)]


def tuned_keys(study: Study) -> frozenset[str]:
    """Returns the keys that tuning chooses."""
    return frozenset(key for arm in study.arms for choice in arm.choices for key in choice)


def _check_task(study: Study, task: str, *, allow_code: bool) -> Iterator[ArmPlan]:
    checked, read = dict[str, ResolvedConfig](), set[str]()
    for arm in study.arms:
        try:
            checked[arm.name] = _checked(study, task, arm, read, allow_code=allow_code)
        except LowMemError as error:
            error.args = (f"Arm {arm.name}: {error}",)
            raise
    flat = {name: flatten(composed.config.model_dump(mode="json")) for name, composed in checked.items()}
    tuned, baseline = tuned_keys(study), flat[study.baseline]
    for name, composed in checked.items():
        others = {key: value for key, value in flat[name].items() if baseline.get(key) != value}
        differences = {key: value for key, value in others.items() if key not in tuned}
        yield ArmPlan(task, name, differences, plan_anywhere(composed))


def _checked(study: Study, task: str, arm: Arm, read: set[str], *, allow_code: bool) -> ResolvedConfig:
    """Returns an arm's configuration; what data it was checked with joins `read`. Raises `LowMemError`."""
    for number in range(len(arm.choices)):
        tried = resolve_trial(study, Trial(task, arm.name, study.seeds[0], number), {})
        check_allowed(tried.named_origins, allow_code=allow_code)
        check_settings(tried.config)
    composed = resolve_trial(study, Trial(task, arm.name, study.seeds[0]), {})
    check_allowed(composed.named_origins, allow_code=allow_code)
    rewards, known = check_settings(composed.config)
    if (data := _data_of(composed.config)) not in read:
        read.add(data)
        if faults := check_data(composed.config, rewards, known, rates_of(composed.config)).refusals:
            raise faults[0]
    return composed


def _data_of(config: RunConfig) -> str:
    """Returns what decides which data is read and how it is scored: equal texts are checked once."""
    dumped = config.model_dump(mode="json", include={"task", "curriculum", "rewards", "eval", "model"})
    return json.dumps([dumped, config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens], sort_keys=True)
