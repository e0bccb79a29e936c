"""Checks everything that can be checked before the model is loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.layer_choice import check_extra, layers_of
from lowmem_rl.config.notices import notices
from lowmem_rl.config.rules import needs_16_bits
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.engine.device import Device, check_dtype, device_on
from lowmem_rl.engine.start import check_start
from lowmem_rl.entrypoints.prompt_check import check_prompts
from lowmem_rl.errors import LowMemError, SetupError, TaskError
from lowmem_rl.evaluation.eval_set import EvalSet, another_task, held_out, held_out_examples
from lowmem_rl.evaluation.grader import Grader, grader_of
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import examples_to_draw, rates_of
from lowmem_rl.grpo.train_dataset import check_enough
from lowmem_rl.memory.calibration import calibration_for
from lowmem_rl.models.hardware import Machine, find_card, this_machine
from lowmem_rl.models.lookup import check_bits, check_fetched, check_length, check_tokenizer, load_shape, model_path
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.gate import gate
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.rewards.adversarial_cases import RewardCase
from lowmem_rl.rewards.model_reward import without_model
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.rewards.reward_check import check_rewards, refuse
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.storage.run_dir import read_json
from lowmem_rl.tasks.curriculum import Rates, difficulties
from lowmem_rl.tasks.select import check_disjoint, draw_examples, gold_completion_of
from lowmem_rl.tasks.task import Selection, Task
from lowmem_rl.tasks.task_check import (
    check_answer_rewards,
    check_examples,
    check_golds,
    check_left_out,
    check_spoiled,
)
from lowmem_rl.tasks.task_finding import refuse as refuse_task
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl.telemetry.trackers import check_trackers
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trainable.selection import worst_case

TRIED_GOLDS = 20
"""Examples on which the rewards are tried."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """What a run works with, checked. `plan.config` is the run's config with every "auto" chosen."""

    plan: Plan
    overridden: tuple[LowMemError, ...]
    """Refusals that --force overrides."""
    device: Device
    rewards: RewardSet
    grader: Grader
    rates: Rates
    """Pass rates with which the order of the prompts starts."""
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    further: tuple[EvalSet, ...]
    """The evaluations of eval.tasks."""
    notes: tuple[str, ...]
    """What the user should know; nothing that keeps the run from starting."""


def prepare(composed: ResolvedConfig, *, force: bool = False, pass_rate: PassRate | None = None) -> PreparedRun:
    """Returns what the run needs apart from the model; `pass_rate` is what is known of it, for the gate.

    Raises `ConfigError`, `TaskError`, `RewardError`, `SetupError`, `DoesNotFit` or `NoSignal`, in the
    order in which they cost time.
    """
    machine = this_machine()
    rewards, task = check_settings(composed.config)
    grader, rates = grader_of(task), rates_of(composed.config)
    check_card(composed, machine)
    planned = plan_here(composed.config, machine, pass_rate)
    overridden = gate(planned, force=force)
    config = planned.config
    check_trackers(config.logging.report_to)
    device = device_on(machine, config)
    check_dtype(config, device)
    check_weights(config)
    train, test = load_examples(config, task, rates)
    further = further_eval_sets(config)
    found = [*notices(config), *check_prompts(config, [*train, *test])]
    overridden += _overridable(lambda: found.extend(check_scoring(config, rewards, task, train)), force=force)
    overridden += _overridable(lambda: found.extend(check_sample(config, rewards, task, train, test)), force=force)
    notes = [*found, *check_order(config, train, rates), *other_model_notes(config)]
    notes += [*control_notes(rewards, task, train), *(finding.what for finding in check_left_out(task))]
    examples = (tuple(train), tuple(test), further)
    return PreparedRun(planned, overridden, device, rewards, grader, rates, *examples, tuple(notes))


def _overridable(check: Callable[[], None], *, force: bool) -> tuple[LowMemError, ...]:
    """Returns the refusal that `force` overrides; without it, the refusal is raised."""
    try:
        check()
    except TaskError as refusal:
        if not force:
            raise
        return (refusal,)
    return ()


def check_order(config: RunConfig, train: Sequence[Example], rates: Rates) -> list[str]:
    """Returns notes on the order. Raises `TaskError` for examples without a difficulty."""
    curriculum = config.curriculum
    if curriculum.by == "none" or (curriculum.how == "window" and not rates):
        return []
    difficulties(train, curriculum.by, rates)
    unknown = [example for example in train if example.id not in rates]
    if curriculum.by != "pass_rate" or not unknown:
        return []
    return [f"{len(unknown)} of {len(train)} examples have no pass rate in {curriculum.rates} and count as one half"]


def other_model_notes(config: RunConfig) -> list[str]:
    """Returns a note if the pass rates are known to be another model's."""
    path = config.curriculum.rates
    probed = read_json(Path(path).expanduser()).get("model") if path else None
    return [f"the pass rates in {path} are those of {probed}"] if probed not in (None, config.model.name) else []


def check_scoring(config: RunConfig, rewards: RewardSet, task: Task, train: Sequence[Example]) -> list[str]:
    """Tries the rewards on gold and on degenerate completions. Returns notes on functions in TRL's or verl's form.

    Raises `RewardError` for a reward with an error, that cannot be earned under the chat template, or that pays a
    degenerate completion more than a perfect one; `TaskError` instead if none of the rewards is for this task.
    """
    trials = [RewardCase(example, gold_completion_of(task, example)) for example in train[:TRIED_GOLDS]]
    template = template_of_model(config.model.name, config.model.revision)
    findings = check_rewards(rewards, trials, template.prefill if template else "")
    if findings:  # rather than what a reward of another task pays: which one is this task's
        refuse_task(config.task.name, list(check_answer_rewards(task, rewards)))
    refuse(findings)
    return [f"{str(finding).rstrip('.')}: check that the prompts ask for what it pays" for finding in findings]


def check_sample(
    config: RunConfig, rewards: RewardSet, task: Task, train: Sequence[Example], test: Sequence[Example]
) -> list[str]:
    """Returns notes on the golds.

    Raises `TaskError` for rewards without a grader of the task, unpaid golds, golds that nobody can answer, paid wrong
    answers, repeats, leaks.
    A control run, which reads no answers on purpose, does not have to separate right from wrong.
    """
    is_control = bool(control_notes(rewards, task, train))
    tried = RewardSet((), ()) if is_control else without_model(rewards)
    golds = check_golds(rewards, train, test)
    found = [*golds, *check_examples(task, tried, train, test, TRIED_GOLDS)]
    # Rewards that need the model count as graders, too.
    unjudged = list(check_answer_rewards(task, tried))
    others = [finding for finding in found if finding not in unjudged]
    refuse_task(config.task.name, [*others, *(() if is_control else check_answer_rewards(task, rewards))])
    return [finding.what for finding in golds if finding.level == "note"]


def control_notes(rewards: RewardSet, task: Task, train: Sequence[Example]) -> list[str]:
    """Returns a note on a run whose rewards read no answers: they hold no grader of the task."""
    unjudged = [finding.what for finding in check_answer_rewards(task, rewards)]
    return [] if unjudged and _read_answers(without_model(rewards), task, train) else unjudged


def _read_answers(rewards: RewardSet, task: Task, train: Sequence[Example]) -> bool:
    """Returns whether a perfect completion earns more than a spoiled one."""
    reads = any(reward.kind == "merit" for reward in rewards.rewards)
    return reads and not any(check_spoiled(task, rewards, train[:TRIED_GOLDS]))


def check_settings(config: RunConfig) -> tuple[RewardSet, Task]:
    """Checks what needs no card, no network and no data: names, user code, the model's length."""
    rewards, task = load_reward_set(config.rewards), load_task(config.task)
    for name in config.eval.tasks:
        load_task(another_task(config, name))
    shape = load_shape(config.model.name, config.model.revision)
    check_bits(shape, config.model.bits, needs_16_bits=needs_16_bits(config.trainable))
    check_length(shape, config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens)
    check_trainable(config.trainable, shape)
    check_start(config, shape)
    LayerSchedule.of(worst_case(config, shape.num_layers), shape.num_layers)
    return rewards, task


def check_trainable(trainable: TrainableConfig, shape: ModelShape) -> None:
    """Raises `ConfigError` for layers that the model lacks, and for a head that is the embeddings' matrix."""
    layers_of(trainable.layers, shape.num_layers)
    check_extra(trainable.extra, is_tied=shape.tied_embeddings)


def plan_here(config: RunConfig, machine: Machine, pass_rate: PassRate | None = None) -> Plan:
    """Returns the plan of a run on this machine: what is free on its card now, or in its RAM, is the budget."""
    shape, known = load_shape(config.model.name, config.model.revision), calibration_for(machine.card, "unsloth")
    return plan(config, shape, machine.card, machine.usable_bytes, pass_rate, known)


def plan_anywhere(composed: ResolvedConfig, pass_rate: PassRate | None = None) -> Plan:
    """Returns the plan on this machine's card, or on the preset's if this machine has none."""
    machine, config = this_machine(), composed.config
    if machine.has_gpu or composed.card == "cpu":
        return plan_here(config, machine, pass_rate)
    card = find_card(composed.card)
    return plan(config, load_shape(config.model.name, config.model.revision), card, pass_rate=pass_rate)


def check_weights(config: RunConfig) -> None:
    """Raises `SetupError` or `ConfigError` for a model that cannot be loaded, `TaskError` for a broken template."""
    model_path(config.model.name)
    if config.model.checkpoint == "plain" or config.model.bits == 16:  # else Unsloth loads another name
        check_fetched(config.model.name, config.model.revision)
    check_tokenizer(config.model.name, config.model.revision)
    template_of_model(config.model.name, config.model.revision)


def check_card(composed: ResolvedConfig, machine: Machine) -> None:
    """Raises `SetupError` for a preset that is made for a GPU on a machine without one."""
    if composed.card == "cpu" or machine.has_gpu:
        return
    raise SetupError(
        f"{composed.preset!r} is made for a GPU ({composed.card}), and this machine shows none.",
        hint="Repeat the command with --dry-run to see what it would do, or train here: --preset tiny-cpu",
    )


def further_eval_sets(config: RunConfig) -> tuple[EvalSet, ...]:
    """Returns the evaluation of each further task, without the run's own. Raises as `held_out` does."""
    names = [name for name in dict.fromkeys(config.eval.tasks) if name != config.task.name]
    return tuple(held_out(config, another_task(config, name)) for name in names)


def load_examples(config: RunConfig, task: Task, rates: Rates) -> tuple[list[Example], list[Example]]:
    """Returns the training examples and the held-out ones. Raises `TaskError`."""
    levels = config.task.levels
    most = examples_to_draw(config, rates)
    train = draw_examples(task, Selection("train", config.task.limit, levels, config.seed), most)
    test = held_out_examples(task, config.task, config.eval.examples)
    check_enough(train, config, overlong=0)
    check_disjoint(train, test)
    return train, test
