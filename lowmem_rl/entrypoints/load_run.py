"""Loads what a run trains and evaluates: policy, sampler, bound rewards, examples, evaluations."""

from dataclasses import dataclass
from functools import partial

from lowmem_rl.checkpointing.resume import check_examples
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.backend import SamplingBackend
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.logprobs import view_of
from lowmem_rl.engine.policy import Policy, prepare_process
from lowmem_rl.engine.reference import load_policy_at_start
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.threads import recorded_threads
from lowmem_rl.entrypoints.row_uses import sequence_uses
from lowmem_rl.entrypoints.run_context import RunContext
from lowmem_rl.evaluation.eval_set import EvalSet, eval_set_of
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import arranged, examples_to_draw
from lowmem_rl.grpo.train_dataset import check_enough, within_prompt_limit
from lowmem_rl.planning.probe_offer import is_unknown, probe_offer
from lowmem_rl.rewards.model_reward import bind_rewards, without_model
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.telemetry.events import PhaseStarted
from lowmem_rl.training.backend_record import BackendRecord
from lowmem_rl.training.eval_schedule import EvalSchedule
from lowmem_rl.trl_adapter.grpo_args import adjustments
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Learner:
    """What a trainer is made of."""

    policy: Policy
    sampler: Sampler
    rewards: RewardSet
    """Those that need the model are bound to it."""
    examples: list[Example]
    """To train on, in the order in which the trainer reads them."""


@dataclass(frozen=True, slots=True)
class LoadedRun(Learner):
    """What is in memory before the first step."""

    evaluations: EvalSchedule
    backend_record: BackendRecord


def load_run(context: RunContext, rewards: RewardSet) -> LoadedRun:
    """Returns the loaded run. Raises `TaskError`, `SetupError`, `RunDirError` or `TrainingError`."""
    config, prepared = context.config, context.prepared
    context.listen(PhaseStarted(f"loading {config.model.name}"))
    prepare_process(config, prepared.device)
    threads = None if context.is_new else recorded_threads(context.run_dir)
    policy = load_policy_at_start(config, prepared.device, sequence_uses(prepared), threads)
    if policy.threads is not None:
        context.note(f"threads: {policy.threads}")
    context.profiler.end("load")
    examples = train_examples(context, policy)
    sampler = _sampler(context, policy)
    own = eval_set_of(config, config.task, list(prepared.test), prepared.grader, without_model(rewards))
    return LoadedRun(
        policy,
        sampler,
        bind_rewards(rewards, view_of(policy, config, context.oom_policy.logprobs)),
        examples,
        _evaluations(context, sampler, own),
        BackendRecord(context.run_dir, sampler),
    )


def note_plan(context: RunContext) -> None:
    """Reports what was decided before the run."""
    plan = context.prepared.plan
    expected, upper = plan.estimate.expected_bytes / GIB, plan.estimate.upper_bytes / GIB
    budget = plan.target.budget_bytes / GIB
    signal = f"not known without a pass rate: {probe_offer(plan)}" if is_unknown(plan) else plan.signal.verdict
    context.note(f"memory {plan.memory_verdict}: {expected:.1f} to {upper:.1f} GiB of {budget:.1f}; signal {signal}")
    for refusal in context.prepared.overridden:
        context.note(f"overridden by --force: {refusal}")
    for note in (*context.prepared.notes, *map(str, adjustments(context.config, context.prepared.device))):
        context.note(note)


def train_examples(context: RunContext, policy: Policy) -> list[Example]:
    """Returns the usable examples in the run's order. Raises `TaskError` if they are too few, or have changed."""
    config, prepared, state = context.config, context.prepared, context.resume_state
    limit = config.grpo.max_prompt_tokens
    usable = within_prompt_limit(policy, prepared.train, limit)
    overlong = len(prepared.train) - len(usable)
    check_enough(usable, config, overlong=overlong)
    if overlong:
        context.note(f"{overlong} prompts of over {limit} tokens are left out (grpo.max_prompt_tokens)")
    if state.planned_steps in (0, config.grpo.steps):
        examples = arranged(usable, config, prepared.rates)
        check_examples(state, examples)
        return examples
    check_examples(state, _examples_as_planned(context, policy))
    context.note(_extension_note(config, state.planned_steps))
    return arranged(usable, config, prepared.rates)


def _examples_as_planned(context: RunContext, policy: Policy) -> list[Example]:
    """Returns the examples of an extended run as it was before: the first ones of what is drawn now."""
    config, rates = context.config, context.prepared.rates
    grpo = config.grpo.model_copy(update={"steps": context.resume_state.planned_steps})
    before = config.model_copy(update={"grpo": grpo})
    drawn = context.prepared.train[: examples_to_draw(before, rates)]
    return arranged(within_prompt_limit(policy, drawn, grpo.max_prompt_tokens), before, rates)


def _extension_note(config: RunConfig, planned_steps: int) -> str:
    schedule, steps = config.optimizer.schedule, config.grpo.steps
    rate = "" if schedule in ("constant", "multistep") else f", and so is the {schedule} learning rate"
    return f"extended from {planned_steps} to {steps} steps: the order of the prompts is the longer run's{rate}"


def _sampler(context: RunContext, policy: Policy) -> Sampler:
    chosen = context.resume_state.counts.get("sampling")
    sampler = Sampler(policy, context.config, context.note, chosen and SamplingBackend(**chosen))
    sampler.rollout_limit, sampler.answer_limit = context.oom_policy.rollout, context.oom_policy.evaluation
    if context.prepared.plan.keeps_copies:
        sampler.kept = KeptCopies(keeps_memory=not policy.device.is_gpu)
        context.oom_policy.free_memory = sampler.drop_copies
    context.note(f"sampling: {sampler.backend}")
    return sampler


def _evaluations(context: RunContext, sampler: Sampler, own: EvalSet) -> EvalSchedule:
    protect = partial(context.oom_policy.raising_on_oom, "evaluation")
    prepared = context.prepared
    found = EvalSchedule(context.run_dir, context.config, sampler, own, prepared.further, context.listen, protect)
    if not context.is_new:
        found.forget_after(context.resume_state.step)
    return found
