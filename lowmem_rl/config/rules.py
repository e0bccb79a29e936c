"""Rules across the fields of a configuration; types and ranges are at the fields (`run_config`)."""

from collections.abc import Iterator
from typing import NamedTuple

from lowmem_rl.config.adapter_rules import broken_adapter_rules
from lowmem_rl.config.run_config import CurriculumConfig, GrpoConfig, OptimizerConfig, RunConfig, TrainableConfig


class BrokenRule(NamedTuple):
    """A rule across fields: the key to change, what is wrong, the fix."""

    key: str
    what: str
    fix: str


def broken_rules(config: RunConfig) -> Iterator[BrokenRule]:
    """Yields every rule across fields that `config` breaks."""
    yield from _broken_run_rules(config)
    yield from _broken_loss_rules(config.grpo)
    yield from _broken_schedule_rules(config.optimizer)
    yield from _broken_curriculum_rules(config.curriculum)
    yield from _broken_trainable_rules(config)
    yield from _broken_layer_schedule_rules(config)
    yield from (BrokenRule(*rule) for rule in broken_adapter_rules(config))
    yield from _broken_selection_rules(config)
    yield from _broken_kept_states_rules(config)
    yield from _broken_start_rules(config)


def _broken_run_rules(config: RunConfig) -> Iterator[BrokenRule]:
    rows, micro_batch = config.rows_per_step, config.memory.micro_batch
    if micro_batch != "auto" and rows % micro_batch:
        what = f"{micro_batch} does not divide the {rows} completions of a step (group_size x prompts_per_step)"
        largest = max(d for d in range(1, min(micro_batch, rows) + 1) if rows % d == 0)
        yield BrokenRule("memory.micro_batch", what, f"set it to {largest}")
    steps, steps_per_rollout = config.grpo.steps, config.grpo.steps_per_rollout
    if steps_per_rollout > steps:
        what = f"one rollout feeds {steps_per_rollout} steps, and the run has {steps}"
        yield BrokenRule("grpo.steps_per_rollout", what, f"set it to at most {steps}")
    if config.rollout.engine == "vllm" and config.model.revision is not None:
        what = "Unsloth loads no revision through vLLM"
        yield BrokenRule("model.revision", what, "leave it unset, or leave vLLM out")
    if not any(config.rewards.values()):
        yield BrokenRule("rewards", "no reward has a weight", "set rewards.boxed_answer=1.0")
    if config.health.action == "roll_back" and not config.logging.checkpoint_every:
        what = 'health.action="roll_back" needs checkpoints to go back to'
        yield BrokenRule("logging.checkpoint_every", what, "set it to 10")


def _broken_loss_rules(grpo: GrpoConfig) -> Iterator[BrokenRule]:
    if grpo.epsilon_high is not None and grpo.epsilon_high < grpo.epsilon:
        what = f"{grpo.epsilon_high} is below grpo.epsilon {grpo.epsilon}"
        yield BrokenRule("grpo.epsilon_high", what, "set it to 0.28, or leave it unset")
    if grpo.loss == "dr_grpo" and grpo.scale_rewards == "group":
        what = "dr_grpo does not scale rewards by the group; Unsloth would turn it off silently on a GPU"
        yield BrokenRule("grpo.scale_rewards", what, 'set it to "none"')
    if grpo.resample_rounds and grpo.scale_rewards == "batch":
        what = "the spread of the batch, which scales the rewards, would change with each round"
        yield BrokenRule("grpo.resample_rounds", what, 'set grpo.scale_rewards="group"')
    if grpo.baseline == "median":
        yield from _broken_median_rules(grpo)
    if grpo.update_rows is not None:
        yield from _broken_downsampling_rules(grpo, grpo.update_rows)


def _broken_median_rules(grpo: GrpoConfig) -> Iterator[BrokenRule]:
    if grpo.group_size % 2 == 0:
        what = f"the median of {grpo.group_size} rewards is none of them; it needs an odd grpo.group_size"
        yield BrokenRule("grpo.baseline", what, f"set grpo.group_size={grpo.group_size + 1}")
    if grpo.update_rows is not None:
        what = "rows that are left out are chosen and compared by the mean"
        yield BrokenRule("grpo.baseline", what, 'leave grpo.update_rows unset, or set grpo.baseline="mean"')


def _broken_downsampling_rules(grpo: GrpoConfig, rows: int) -> Iterator[BrokenRule]:
    key = "grpo.update_rows"
    if grpo.loss == "bnpo":
        what = "bnpo divides by the tokens of each micro-batch, including those of rows left out"
        yield BrokenRule(key, what, 'set grpo.loss="dapo"')
    if rows > grpo.group_size:
        what = f"{rows} rows of a group of {grpo.group_size}"
        yield BrokenRule(key, what, f"set it to at most {grpo.group_size}, or leave it unset")
    if grpo.beta > 0:
        yield BrokenRule(
            key, "under a KL penalty the rows left out have a gradient too", "set grpo.beta=0, or leave it unset"
        )


def _broken_schedule_rules(optimizer: OptimizerConfig) -> Iterator[BrokenRule]:
    key = "optimizer.milestones"
    if (optimizer.schedule == "multistep") != bool(optimizer.milestones):
        yield BrokenRule(key, "milestones and schedule = 'multistep' go together", "set both, or neither")
    if list(optimizer.milestones) != sorted(set(optimizer.milestones)):
        yield BrokenRule(key, "must rise", "list each step once, in order")
    if optimizer.name == "sgd":
        for name in ("beta1", "beta2"):
            if getattr(optimizer, name) != type(optimizer).model_fields[name].default:
                yield BrokenRule(f"optimizer.{name}", 'it has no effect with optimizer.name="sgd"', "leave it out")


def _broken_curriculum_rules(curriculum: CurriculumConfig) -> Iterator[BrokenRule]:
    by, how, fix = curriculum.by, curriculum.how, 'set curriculum.by to "pass_rate"'
    if how == "window" and by != "pass_rate":
        yield BrokenRule("curriculum.how", f"a window is of pass rates, not of {by}", fix)
    elif how == "mixed" and by == "none":
        yield BrokenRule("curriculum.how", "nothing says which examples are to be mixed", "set curriculum.by")
    if curriculum.rates is not None and by != "pass_rate":
        yield BrokenRule("curriculum.rates", f"by {by} no pass rates are read", fix)
    if curriculum.rates is None and by == "pass_rate" and how != "window":
        what = f"an order by pass_rate that is {how} needs them before the run"
        fix = 'name a file of `lowmem-rl probe`, or set curriculum.how to "window"'
        yield BrokenRule("curriculum.rates", what, fix)


def _broken_trainable_rules(config: RunConfig) -> Iterator[BrokenRule]:
    trainable, is_whole = config.trainable, config.trainable.method == "full"
    if trainable.layers == "none" and not (is_whole and trainable.extra):
        yield BrokenRule("trainable.layers", "no weight would learn", 'set it to "all", or to "last:5"')
    if not is_whole:
        for key in ("modules", "extra", "dtype"):
            if getattr(trainable, key) != type(trainable).model_fields[key].default:
                fix = 'set trainable.method="full", or leave it out; an adapter\'s matrices are adapter.targets'
                yield BrokenRule(f"trainable.{key}", "it has no effect on an adapter", fix)
        return
    if config.rollout.engine == "vllm":
        what = "Unsloth hands an adapter to vLLM, and no whole weights"
        yield BrokenRule("trainable.method", what, 'leave rollout.engine at "auto", or set trainable.method="lora"')
    if config.adapter.dropout:
        yield BrokenRule("adapter.dropout", "whole weights have no adapter to drop out", "leave it at 0")
    if trainable.modules and trainable.layers == "none":
        yield BrokenRule("trainable.modules", "they are in layers, of which none learns", 'set trainable.layers="all"')


_READ_BY = {
    "every": ("gradual_unfreezing", "gradual_freezing", "autofreeze", "slimfit", "lisa", "badam"),
    "active": ("lisa", "badam"),
    "order": ("gradual_unfreezing", "gradual_freezing", "badam"),
    "state": ("gradual_unfreezing", "gradual_freezing", "slimfit", "lisa", "badam"),
    "percentile": ("autofreeze",),
    "freeze_rate": ("slimfit",),
}
"""Settings of `trainable`, and the schedules that read each."""


_IN_TURN = ("lisa", "badam", "slimfit")


def needs_16_bits(trainable: TrainableConfig) -> bool:
    """Returns whether each layer that learns whole rests again: it cannot go back to 4 bit."""
    return trainable.method == "full" and trainable.schedule in _IN_TURN


def _broken_layer_schedule_rules(config: RunConfig) -> Iterator[BrokenRule]:
    trainable, schedule = config.trainable, config.trainable.schedule
    yield from _keys_without_effect(trainable)
    if schedule == "fixed":
        return
    if config.rollout.engine == "vllm":
        what = "Unsloth hands vLLM one set of layers for the whole run"
        yield BrokenRule("trainable.schedule", what, 'leave rollout.engine at "auto", or the schedule fixed')
    if trainable.layers == "none":
        yield BrokenRule("trainable.schedule", "it needs layers that can learn", 'set trainable.layers="all"')
    if config.model.bits == 4 and needs_16_bits(trainable):
        what = f"with {schedule} every layer learns at times, and a whole layer that has learned is in 4 bit no more"
        yield BrokenRule("trainable.schedule", what, "set model.bits=16, or trainable.method=lora")
    if schedule in _READ_BY["every"]:
        yield from _broken_period_rules(trainable, config.grpo)


def _keys_without_effect(trainable: TrainableConfig) -> Iterator[BrokenRule]:
    for key, readers in _READ_BY.items():
        if trainable.schedule not in readers and getattr(trainable, key) != type(trainable).model_fields[key].default:
            what = f'it has no effect with trainable.schedule="{trainable.schedule}"'
            yield BrokenRule(f"trainable.{key}", what, f"leave it out, or set trainable.schedule={readers[-1]}")


_FEWEST_PERIODS = 3
"""Two to compare, and one in which what they chose learns."""


def _broken_period_rules(trainable: TrainableConfig, grpo: GrpoConfig) -> Iterator[BrokenRule]:
    every, steps = trainable.every, grpo.steps_per_rollout * grpo.passes_per_rollout
    if every % steps:
        what = f"the set of layers changes between two rollouts, and one feeds {steps} steps"
        yield BrokenRule("trainable.every", what, f"set it to a multiple of {steps}, such as {steps * -(-20 // steps)}")
    if trainable.schedule in ("autofreeze", "slimfit") and grpo.steps // every < _FEWEST_PERIODS:
        what = f"the choice rests on the periods before, and {grpo.steps} steps hold {grpo.steps // every} of {every}"
        longest = grpo.steps // _FEWEST_PERIODS // steps * steps
        more = f"set grpo.steps to at least {_FEWEST_PERIODS * every}"
        yield BrokenRule("trainable.every", what, f"set it to at most {longest}, or {more}" if longest else more)


BY_GRADIENT = ("grad_norm", "relative_grad_norm", "fisher")
"""Values of `trainable.select` that read gradients of sampled completions."""


def _broken_selection_rules(config: RunConfig) -> Iterator[BrokenRule]:
    trainable, key = config.trainable, "trainable.select"
    fields = type(trainable).model_fields
    if trainable.select not in BY_GRADIENT and trainable.select_rounds != fields["select_rounds"].default:
        what = f'trainable.select="{trainable.select}" samples nothing'
        yield BrokenRule("trainable.select_rounds", what, "leave it out, or set trainable.select=grad_norm")
    if trainable.select == "none":
        if trainable.select_top != fields["select_top"].default:
            what = 'it has no effect with trainable.select="none"'
            yield BrokenRule("trainable.select_top", what, "leave it out, or set trainable.select=grad_norm")
        return
    if trainable.schedule in ("lisa", "badam", "slimfit"):
        what = f'trainable.schedule="{trainable.schedule}" chooses the layers, too, again and again'
        yield BrokenRule(key, what, "leave one of them out")
    if trainable.layers == "none":
        yield BrokenRule(key, "it needs layers to choose from", 'set trainable.layers="all"')
    if config.rollout.engine == "vllm":
        what = "Unsloth sets vLLM up for one adapter, and the scores need another"
        yield BrokenRule(key, what, 'leave rollout.engine at "auto", or name trainable.layers')
    if trainable.modules and all(name.endswith("norm") for name in trainable.modules):
        what = "it scores matrices, and trainable.modules names none"
        yield BrokenRule(key, what, "name trainable.layers, or leave trainable.modules out")


def _broken_kept_states_rules(config: RunConfig) -> Iterator[BrokenRule]:
    if not config.keeps_states:
        return
    key, fix, layers = "memory.kept_states", 'set it to "auto"', config.trainable.layers
    if config.rollout.engine in ("generate", "vllm"):
        what = f"only our engine keeps states, and rollout.engine is {config.rollout.engine}"
        yield BrokenRule(key, what, f'{fix}, or rollout.engine="auto"')
    is_bottom = layers in ("all", "none") or layers.startswith(("first:", "every:", "0"))
    always = is_bottom and (config.trainable.schedule, config.trainable.select) == ("fixed", "none")
    if always or {"embed_tokens", "norms"} & set(config.trainable.extra):
        what = "no frozen layer is below the lowest that learns"
        yield BrokenRule(key, what, f'{fix}, or trainable.layers="last:5"')


def _broken_start_rules(config: RunConfig) -> Iterator[BrokenRule]:
    trainable = config.trainable
    if config.start_from is None:
        return
    if trainable.select != "none":
        what = "the layers that learn are those of the adapter that the run starts from"
        yield BrokenRule("trainable.select", what, "leave it out, or start from a merged folder")
    if trainable.method == "full" and trainable.schedule != "fixed":
        what = "whole weights that a run starts from learn all the time: at rest they would be the base model's"
        yield BrokenRule("trainable.schedule", what, "leave it fixed, or start from a merged folder")
