"""Selects the layers that learn, before a run loads them: `trainable.select`.

The scores come from a model of their own, with an adapter in all candidates, which is dropped: the run then loads its
model as if its configuration had named the layers. Loading sets all random states, so that both train equal, to the
digit.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lowmem_rl.checkpointing.resume_config import RESUME_HINT
from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.config.rules import BY_GRADIENT
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.layer_probe import GradientSums, probed_matrices
from lowmem_rl.engine.logprobs import view_of
from lowmem_rl.engine.oom import free_memory
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.weight_scores import signal_to_noise_ratios, squared_norms
from lowmem_rl.entrypoints.load_run import Learner, train_examples
from lowmem_rl.entrypoints.row_uses import sequence_uses
from lowmem_rl.entrypoints.run_context import RunContext
from lowmem_rl.entrypoints.train_steps import trainer_setup
from lowmem_rl.errors import NoSignal, RunDirError
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.prompt_order import order_of
from lowmem_rl.grpo.train_dataset import Prompt
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.oom_advice import suggest_fix
from lowmem_rl.planning.overrides import PLANNER, with_overrides
from lowmem_rl.planning.search import choose
from lowmem_rl.rewards.model_reward import bind_rewards
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.storage.run_dir import append_row, read_rows
from lowmem_rl.storage.run_reader import RunReader, part
from lowmem_rl.telemetry.events import LayersSelected, Listener, PhaseStarted
from lowmem_rl.trainable.scores import highest, mean_by_kind, norms_by_layer, relative, sums_by_layer
from lowmem_rl.trainable.selection import LayerSelection, candidates_of, probe_config, with_layers
from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.probing import probing
from lowmem_rl.trl_adapter.trainer import make_trainer


def with_selected_layers(context: RunContext, rewards: RewardSet) -> RunContext:
    """Returns the run with the layers named that it selects, or that it had selected before it was interrupted.

    Raises `NoSignal` if no round of sampling has a gradient, `RunDirError` if a resumed run has lost its selection.
    """
    if context.config.trainable.select == "none":
        return context
    found = _recorded(context)
    if found is None:
        found = _planned_again(context, _select(context, rewards))
        free_memory()  # of the model that was scored
        context.profiler.begin()
        append_row(context.run_dir.trainable, found.to_row())
    context.listen(LayersSelected(found))
    config = with_layers(context.config, text_of(found.layers))
    if found.kept_states:
        config = with_overrides(config, {"memory.kept_states": found.kept_states})
    return context.with_config(config)


def _planned_again(context: RunContext, found: LayerSelection) -> LayerSelection:
    """Returns the selection with what the planner makes of frozen layers below it; all else is planned.

    Who chose is read from config.json: a run that was interrupted before has its values, no "auto".
    """
    key = "memory.kept_states"
    if part(RunReader(context.run_dir).config_file, "origins").get(key) != PLANNER:
        return found
    named = with_overrides(with_layers(context.config, text_of(found.layers)), {key: "auto"})
    return replace(found, kept_states=choose(named, context.prepared.plan.target).memory.kept_states)


def _recorded(context: RunContext) -> LayerSelection | None:
    """Returns the selection of a run that has made it; None before. Raises `RunDirError` if it is lost or damaged."""
    path, config = context.run_dir.trainable, context.config
    row = next((row for row in read_rows(path) if row.get("step") == 0), None)
    if row is None and context.resume_state.checkpoint is None:
        return None
    try:
        found = LayerSelection.from_row(row or {})
    except ValueError as error:
        raise RunDirError(f"{path} does not hold the layers that the run has selected.", hint=RESUME_HINT) from error
    if not found.fits(config.trainable, load_shape(config.model.name, config.model.revision).num_layers):
        raise RunDirError(f"{path} holds a selection of layers that is not this run's.", hint=RESUME_HINT)
    return found


def _select(context: RunContext, rewards: RewardSet) -> LayerSelection:
    trainable, device = context.config.trainable, context.prepared.device
    probe = probe_config(context.config)
    context.listen(PhaseStarted(f"loading {probe.model.name}, to select layers by {trainable.select}"))
    prepare_process(probe, device)
    if trainable.select in BY_GRADIENT:
        with _quiet(context, probe) as quiet:
            rounds, scores = _gradient_scores(context, quiet, rewards)
    else:
        rounds, scores = 0, _weight_scores(context, probe)
    return LayerSelection(trainable.select, scores, highest(scores, trainable.select_top), rounds)


def _weight_scores(context: RunContext, probe: RunConfig) -> dict[int, float]:
    policy = load_policy(probe, context.prepared.device)
    if context.config.trainable.select == "weight_norm":
        return norms_by_layer(squared_norms(policy.model))
    candidates = candidates_of(context.config, policy.model.config.num_hidden_layers)

    def report(layer: int) -> None:
        text = f"selecting layers by snr: {candidates.index(layer) + 1} of {len(candidates)}"
        context.listen(PhaseStarted(text))

    return mean_by_kind(signal_to_noise_ratios(policy.model, report))


@contextmanager
def _quiet(context: RunContext, probe: RunConfig) -> Iterator[RunContext]:
    """Yields the context of the rounds, which reports nothing that the run will report again, and records no step."""
    plan = context.prepared.plan
    with tempfile.TemporaryDirectory(prefix="lowmem-rl-select-") as folder:
        oom_policy = OomPolicy(
            probe,
            Path(folder) / "recoveries.jsonl",
            lambda text: context.note(f"while layers are selected: {text}"),
            partial(suggest_fix, plan.config, plan.target),
        )
        prepared = replace(context.prepared, plan=replace(plan, config=probe))
        yield replace(context, prepared=prepared, listen=lambda event: None, oom_policy=oom_policy)


def _gradient_scores(context: RunContext, quiet: RunContext, rewards: RewardSet) -> tuple[int, dict[int, float]]:
    """Returns the rounds that had a gradient, and the scores. Raises `NoSignal` if there were none."""
    select = context.config.trainable.select
    policy = load_policy(quiet.config, context.prepared.device, sequence_uses(context.prepared))
    gradients = _rounds(context, quiet, rewards, policy)
    _check_signal(context, gradients.rounds, gradients.skipped)
    if select == "fisher":
        return gradients.rounds, sums_by_layer(gradients.summed_squares())
    norms = norms_by_layer(gradients.squared_mean())
    if select == "relative_grad_norm":
        norms = relative(norms, norms_by_layer(squared_norms(policy.model)))
    return gradients.rounds, norms


def _rounds(context: RunContext, quiet: RunContext, rewards: RewardSet, policy: Policy) -> GradientSums:
    """Samples and scores as the run will, and returns the gradients."""
    trainable, probe = context.config.trainable, quiet.config
    sampler = Sampler(policy, probe)
    sampler.rollout_limit, sampler.answer_limit = quiet.oom_policy.rollout, quiet.oom_policy.evaluation
    bound = bind_rewards(rewards, view_of(policy, probe, quiet.oom_policy.logprobs))
    learner = Learner(policy, sampler, bound, train_examples(replace(quiet, prepared=context.prepared), policy))
    order = order_of(learner.examples, context.config, context.prepared.rates)
    errors = RewardErrorCounter(probe.health.max_reward_error_share, context.note)
    hooks = Hooks((order, _Progress(context.listen, trainable.select, trainable.select_rounds)))
    gradients = GradientSums(tuple(probed_matrices(policy.model)))
    trainer = make_trainer(policy, trainer_setup(quiet, learner, errors, hooks), (probing(gradients),))
    with quiet.oom_policy.report_settings():
        trainer.train()
    return gradients


def _check_signal(context: RunContext, rounds: int, skipped: list[int]) -> None:
    trainable = context.config.trainable
    if not rounds:
        what = f"trainable.select = {trainable.select!r}: all groups of {len(skipped)} rounds of sampling are dead"
        raise NoSignal(
            f"{what}, so no layer has a gradient to be scored by.",
            hint="Raise trainable.select_rounds or grpo.group_size, or set trainable.select=snr, which needs none.",
        )
    if skipped:
        numbers = ", ".join(map(str, skipped))
        context.note(f"rounds without an informative group score nothing: {numbers} of {trainable.select_rounds}")


@dataclass(frozen=True, slots=True)
class _Progress:
    """Reports each round."""

    listen: Listener
    by: str
    rounds: int

    def choose_prompts(self, prompts: list[Prompt], step: int) -> list[Prompt]:
        """Reports the round of sampling that begins."""
        self.listen(PhaseStarted(f"selecting layers by {self.by}: round {step} of {self.rounds}"))
        return list(prompts)
