"""Rules across the fields of a configuration; types and ranges stand at the fields (`config`)."""

from collections.abc import Iterator

from pydantic import BaseModel

from lowmem_rl.config.run_config import CurriculumConfig, GrpoConfig, RunConfig


class BrokenRule(BaseModel):
    """A rule across fields: the key to change, what is wrong, the fix."""

    key: str
    what: str
    fix: str


def broken_rules(config: RunConfig) -> Iterator[BrokenRule]:
    """Yields every rule across fields that `config` breaks."""
    rows, micro_batch = config.rows_per_step, config.memory.micro_batch
    if micro_batch != "auto" and rows % micro_batch:
        yield BrokenRule(
            key="memory.micro_batch",
            what=f"{micro_batch} does not divide the {rows} completions of a step (group_size x prompts_per_step)",
            fix=f"set it to {_nearest_divisor(rows, micro_batch)}",
        )
    if config.grpo.steps_per_rollout > config.grpo.steps:
        yield BrokenRule(
            key="grpo.steps_per_rollout",
            what=f"one rollout feeds {config.grpo.steps_per_rollout} steps, and the run has {config.grpo.steps}",
            fix=f"set it to at most {config.grpo.steps}",
        )
    if config.rollout.engine == "vllm" and config.model.revision is not None:
        yield BrokenRule(
            key="model.revision",
            what="Unsloth loads no revision through vLLM",
            fix="leave it unset, or leave vLLM out",
        )
    if not any(config.rewards.values()):
        yield BrokenRule(key="rewards", what="no reward has a weight", fix="set rewards.boxed_answer=1.0")
    yield from _broken_saving_rules(config.grpo)
    if config.health.action == "roll_back" and not config.logging.checkpoint_every:
        yield BrokenRule(
            key="logging.checkpoint_every",
            what='health.action="roll_back" needs checkpoints to go back to',
            fix="set it to 10",
        )
    if config.grpo.epsilon_high is not None and config.grpo.epsilon_high < config.grpo.epsilon:
        yield BrokenRule(
            key="grpo.epsilon_high",
            what=f"{config.grpo.epsilon_high} is below grpo.epsilon {config.grpo.epsilon}",
            fix="set it to 0.28, or leave it unset",
        )
    if config.grpo.loss == "dr_grpo" and config.grpo.scale_rewards == "group":
        yield BrokenRule(
            key="grpo.scale_rewards",
            what="dr_grpo does not scale rewards by the group; Unsloth would turn it off silently on a GPU",
            fix='set it to "none"',
        )
    yield from _broken_schedule_rules(config)
    yield from _broken_curriculum_rules(config.curriculum)


def _broken_saving_rules(grpo: GrpoConfig) -> Iterator[BrokenRule]:
    if grpo.update_rows is not None and grpo.loss == "bnpo":
        yield BrokenRule(
            key="grpo.update_rows",
            what="bnpo divides by the tokens of each micro-batch, those of rows left out too",
            fix='set grpo.loss="dapo"',
        )
    if grpo.update_rows is not None and grpo.update_rows > grpo.group_size:
        yield BrokenRule(
            key="grpo.update_rows",
            what=f"{grpo.update_rows} rows of a group of {grpo.group_size}",
            fix=f"set it to at most {grpo.group_size}, or leave it unset",
        )
    if grpo.update_rows is not None and grpo.beta > 0:
        yield BrokenRule(
            key="grpo.update_rows",
            what="under a KL penalty the rows left out have a gradient too",
            fix="set grpo.beta=0, or leave it unset",
        )
    if grpo.resample_rounds and grpo.scale_rewards == "batch":
        yield BrokenRule(
            key="grpo.resample_rounds",
            what="the spread of the batch, which scales the rewards, would change with each round",
            fix='set grpo.scale_rewards="group"',
        )


def _broken_schedule_rules(config: RunConfig) -> Iterator[BrokenRule]:
    optimizer = config.optimizer
    if (optimizer.schedule == "multistep") != bool(optimizer.milestones):
        yield BrokenRule(
            key="optimizer.milestones",
            what="milestones and schedule = 'multistep' go together",
            fix="set both, or neither",
        )
    if list(optimizer.milestones) != sorted(set(optimizer.milestones)):
        yield BrokenRule(key="optimizer.milestones", what="must rise", fix="list each step once, in order")


def _broken_curriculum_rules(curriculum: CurriculumConfig) -> Iterator[BrokenRule]:
    by, how = curriculum.by, curriculum.how
    if how == "window" and by != "pass_rate":
        yield BrokenRule(
            key="curriculum.how",
            what=f"a window is of pass rates, not of {by}",
            fix='set curriculum.by to "pass_rate"',
        )
    elif how == "mixed" and by == "none":
        yield BrokenRule(
            key="curriculum.how", what="nothing says which examples are to be mixed", fix="set curriculum.by"
        )
    if curriculum.rates is not None and by != "pass_rate":
        yield BrokenRule(
            key="curriculum.rates", what=f"by {by} no pass rates are read", fix='set curriculum.by to "pass_rate"'
        )
    if curriculum.rates is None and by == "pass_rate" and how != "window":
        yield BrokenRule(
            key="curriculum.rates",
            what=f"an order by pass_rate that is {how} needs them beforehand",
            fix='name a file of `lowmem-rl probe`, or set curriculum.how to "window"',
        )


def _nearest_divisor(total: int, wanted: int) -> int:
    return max(d for d in range(1, min(wanted, total) + 1) if total % d == 0)
