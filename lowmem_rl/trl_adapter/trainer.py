"""Our GRPOTrainer: TRL's (on a GPU, Unsloth's rewriting of it) with thin overrides that call the rooms below.

The class is joined in a function, after Unsloth has patched TRL; joined earlier it would inherit from the unpatched
one. Only methods that survive the rewriting are overridden: Unsloth never calls `_compute_loss`, and replaces
`_get_per_token_logps_and_entropies`, which is only wrapped here. `training.step` has a step in the order of time.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.kept_states import KeptStates
from lowmem_rl.engine.policy import Policy, import_unsloth
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import stream_names
from lowmem_rl.engine.unsloth_shortcuts import given_up
from lowmem_rl.grpo.advantages import group_advantages, weighted_rewards
from lowmem_rl.grpo.batch import Batch, with_values
from lowmem_rl.grpo.dynamic_sampling import dead_groups, other_prompts, replaced
from lowmem_rl.grpo.lr_schedule import multistep_factor
from lowmem_rl.grpo.micro_batches import BatchPlan
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.rollout_downsampling import down_sampled
from lowmem_rl.grpo.scored_batch import ScoredBatch
from lowmem_rl.telemetry.metrics import metric_row
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.call_replay import ReplayedCalls
from lowmem_rl.trl_adapter.forward_start import KeptStatesMixin
from lowmem_rl.trl_adapter.gradient_start import shorten_backward
from lowmem_rl.trl_adapter.grpo_args import grpo_arguments, unsloth_arguments
from lowmem_rl.trl_adapter.layer_rates import follow_freezeout, split_by_layer
from lowmem_rl.trl_adapter.prefix_sharing import PrefixSharingMixin
from lowmem_rl.trl_adapter.sampler_check import gap_metrics
from lowmem_rl.trl_adapter.step_boundary import StepBoundaryMixin
from lowmem_rl.trl_adapter.update import UpdateMixin


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """What one call to a sampler found."""

    completion_ids: list[list[int]]
    log_probs: Any
    """Of each token, if TRL's own sampling gives them or the update compares them."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """For the step's row."""
    states: KeptStates | None = None


@dataclass(frozen=True, slots=True)
class TrainerSetup:
    """What a trainer is made of, without its policy."""

    config: RunConfig
    sampler: Sampler
    dataset: Any
    reward_functions: Sequence[Callable[..., list[float | None]]]
    prompt_tokens: Callable[[str], list[int]]
    """The ids of an example's rendered prompt."""
    out: Path
    hooks: Hooks = field(default_factory=Hooks)
    describe: Callable[[ScoredBatch], ScoredBatch] = lambda batch: batch
    """Adds to a scored batch what a run directory keeps of it."""
    callbacks: Sequence[Any] = ()
    oom_policy: OomPolicy | None = None
    """Without one an out-of-memory error passes."""


def make_trainer(policy: Policy, setup: TrainerSetup, kinds: Sequence[type] = ()) -> Any:
    """Returns a trainer over the policy, ready for `train()`; `kinds` are mixins that come before ours."""
    import_unsloth()
    trainable = _trainable_weights(policy.model)
    _leave_float32_alone(policy.device)
    trainer = trainer_class(*kinds)(policy, setup)
    # The constructor has let the embeddings' output need a gradient.
    changes = setup.config.trainable.schedule != "fixed"
    trainer.layer_start = shorten_backward(policy.model.get_base_model(), changes=changes)
    is_adapter = setup.config.trainable.method == "lora"
    for weight, data in trainable:
        weight.data = data.to(weight.device, torch.float32 if is_adapter else data.dtype)
    return trainer


def _trainable_weights(model: Any) -> list[tuple[Any, torch.Tensor]]:
    """Returns the trainable weights, each with its data, to be restored once TRL has cast them.

    TRL's constructor rounds a quantised model's adapter to bfloat16 (Unsloth removes that on a GPU). bfloat16
    resolves 2^-8 of a weight: at a learning rate of 5e-6 nearly every update would round to nothing, and float16's
    gradient scaler refuses such parameters. Casting the rounded weights back would lose 16 bits of what was loaded.
    """
    return [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]


def _leave_float32_alone(device: Device) -> None:
    """Keeps Unsloth's trainer from computing a float32 run under bfloat16 autocast (unsloth/models/rl.py).

    The variable names the type of the trainable weights, "bfloat16" meaning: no autocast. Loading any model sets it
    to "float32", which means autocast, whatever `bf16` and `fp16` say.
    """
    if device.is_gpu and device.dtype == "float32":
        os.environ["UNSLOTH_MIXED_PRECISION"] = "bfloat16"


def trainer_arguments(config: RunConfig, device: Device, out: Path) -> dict[str, Any]:
    """Returns all arguments of the GRPOConfig that is in force on this device."""
    return grpo_arguments(config, device, out) | unsloth_arguments(config, device)


def batch_plan_of(config: RunConfig, device: Device) -> BatchPlan:
    """Returns how the run's rollouts are split into micro-batches."""
    grpo = config.grpo
    return BatchPlan(
        group_size=grpo.group_size,
        micro_batch=config.micro_batch,
        steps=grpo.steps_per_rollout,
        loss=grpo.loss,
        drops_dead_rows=grpo.beta == 0.0,
        keeps_groups=device.is_gpu and config.micro_batch % grpo.group_size == 0,
        shares_prompts=not device.is_gpu and config.checkpointing == "none",
        max_prompt_tokens=grpo.max_prompt_tokens,
        max_completion_tokens=grpo.max_completion_tokens,
    )


def trainer_class(*kinds: type) -> type:
    """Returns the trainer's class, over the GRPOTrainer that TRL shows now."""
    from trl import GRPOTrainer

    # Unsloth's rewriting has a log-prob method of its own, with kernels that share prompts.
    plain = (PrefixSharingMixin,) if GRPOTrainer.__module__.startswith("trl.") else ()
    return type("LowMemTrainer", (*kinds, SamplingMixin, StepBoundaryMixin, KeptStatesMixin, *plain, GRPOTrainer), {})


class SamplingMixin(UpdateMixin):
    """Sampling and scoring; the constructor."""

    round = 0
    """Rounds of resampling that came before in this step."""
    sampled_at = -1
    """The micro-batch before which the last rollout was sampled."""
    scores: torch.Tensor
    """(R, rewards) of the last round, NaN where a reward gives none."""

    def __init__(self, policy: Policy, setup: TrainerSetup) -> None:
        from trl import GRPOConfig

        self.policy, self.config, self.sampler, self.hooks = policy, setup.config, setup.sampler, setup.hooks
        self.prompt_tokens, self.describe, self.oom_policy = setup.prompt_tokens, setup.describe, setup.oom_policy
        self.batch_plan = batch_plan_of(setup.config, policy.device)
        self.calls, self.given_up = ReplayedCalls(), given_up(policy.model)
        super().__init__(
            model=policy.model,
            processing_class=policy.tokenizer,
            # With beta TRL would copy all trainable weights as the reference, which `disable_adapter` computes with.
            args=GRPOConfig(**trainer_arguments(setup.config, policy.device, setup.out) | {"beta": 0.0}),
            train_dataset=setup.dataset,
            reward_funcs=[self.calls.wrapped(function) for function in setup.reward_functions],
            callbacks=[_step_events(self), *setup.callbacks],
        )
        self.beta = self.args.beta = setup.config.grpo.beta

    def _sample_if_due(self, generation_batch: Any) -> None:
        is_due = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        if self._buffered_inputs is None or (is_due and self.sampled_at != self._step):
            found = self.sample_round(lambda: self.split_rollout(self._sampled(generation_batch), self.step))
            self._metrics["train"]["dead_rows"].append(found.dead_rows)
            self.sampled_at = self._step

    def _sampled(self, generation_batch: Any) -> Batch:
        grpo = self.config.grpo
        self.round = 0
        self.begin_keeping()
        prompts = self.calls.run(lambda: self.hooks.choose_prompts(generation_batch, self.step + 1))
        rollout = self._with_signal(prompts, self._generate_and_score_completions(prompts))
        if grpo.update_rows is not None:
            scaled, counts_rows = grpo.scale_rewards == "group", grpo.loss in ("grpo", "dr_grpo")
            rollout = down_sampled(rollout, grpo.group_size, grpo.update_rows, scaled=scaled, counts_rows=counts_rows)
        return rollout

    def _with_signal(self, prompts: Any, rollout: Batch) -> Batch:
        """Replaces dead groups in as many rounds as the config allows: none by default."""
        asked, size = {row["example_id"] for row in prompts}, self.config.grpo.group_size
        for number in range(self.config.grpo.resample_rounds):
            self.round = number + 1
            dead = dead_groups(rollout, size)
            fresh = other_prompts(self.train_dataset, asked, len(dead), self._stream)
            if not fresh:
                break
            asked |= {row["example_id"] for row in fresh}
            more = self._generate_and_score_completions([row for row in fresh for _ in range(size)])
            rollout = replaced(rollout, dead, more, size, self.processing_class.pad_token_id)
        self.round = 0
        return rollout

    @property
    def _stream(self) -> str:
        """Names the present round of sampling; random streams are seeded by it."""
        return f"{self.config.seed}/{self.step}/{self.round}"

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with self.hooks.phase("logprobs"):  # what is neither rollout nor scoring: advantages, other policies' log-probs
            rollout = super()._generate_and_score_completions(inputs)
            if self.config.grpo.baseline == "median":
                rollout = self._around_the_median(rollout)
        return rollout if self.kept_rows is None else rollout | {"kept_row": self.kept_rows}

    def _around_the_median(self, rollout: Batch) -> Batch:
        """Returns the rollout with advantages against each group's median reward, which TRL does not have."""
        grpo, rewards = self.config.grpo, weighted_rewards(self.scores, self.reward_weights.to(self.scores.device))
        advantages = group_advantages(rewards, grpo.group_size, grpo.scale_rewards, "median")
        return with_values(rollout, {"advantages": advantages.to(rollout["advantages"].device)})

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The data set names examples: their prompts are rendered once, not once a completion and step."""
        return [self.prompt_tokens(example_id) for example_id in prompts], None, {}

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        if self.sampler.uses_lowmem_engine:
            sample = partial(self._sample_ourselves, prompt_ids)
        else:
            sample = partial(self.sample_through_trl, prompt_ids, images, multimodal_fields, num_generations)
        with self.hooks.phase("rollout"):
            found = self.calls.run(sample)
        self.calls.has_completions = True
        self.keep(len(prompt_ids), found.states)
        for name, value in found.metrics.items():
            self._metrics["train"][name].append(value)
        return found.completion_ids, found.log_probs

    def _sample_ourselves(self, prompt_ids: list[list[int]]) -> SampledBatch:
        states, streams = self.recorder(), stream_names(self._stream, len(prompt_ids))
        if states is None and self.sampler.is_compared_by_update:
            sampled = self.sampler.rollout(prompt_ids, streams, compares=False)
            self.compare_later(prompt_ids, sampled)
            return SampledBatch([row.ids for row in sampled], [row.log_probs for row in sampled])
        sampled = self.sampler.rollout(prompt_ids, streams, states)
        metrics = gap_metrics(self.sampler)
        if states is not None:
            metrics["kept_states"] = float(states.kept is not None)
            metrics["kept_states_error"] = math.nan if states.error is None else states.error
        return SampledBatch([row.ids for row in sampled], None, metrics, states and states.kept)

    def sample_through_trl(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int
    ) -> SampledBatch:
        """Samples with `generate` in waves, or with vLLM, which plans its own."""
        sample = partial(
            super()._generate_single_turn,
            images=images,
            multimodal_fields=multimodal_fields,
            num_generations=num_generations,
        )

        def waves(rows: int) -> tuple[list[list[int]], Any]:
            found = [sample(prompt_ids[i : i + rows]) for i in range(0, len(prompt_ids), rows)]
            log_probs = None if found[0][1] is None else [row for _, wave in found for row in wave]
            return [row for ids, _ in found for row in ids], log_probs

        if self.use_vllm:
            return SampledBatch(*sample(prompt_ids))
        # Repeated in other waves, `generate` draws other completions, which are as good.
        rows = self.config.rollout_rows
        return SampledBatch(*(self.oom_policy.rollout.run(waves, rows) if self.oom_policy else waves(rows)))

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Any:
        with self.hooks.phase("scoring"):
            scores = self.scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            ids = [row["example_id"] for row in inputs]
            batch = ScoredBatch(
                step=self.step + 1,
                group_size=self.config.grpo.group_size,
                example_ids=ids,
                prompt_tokens=[len(self.prompt_tokens(example_id)) for example_id in ids],
                completion_ids=completion_ids_list,
                scores=[[None if score != score else score for score in row] for row in scores.tolist()],
            )
            self.calls.run(lambda: self.hooks.on_scored(self.describe(batch)))
        return scores

    def create_optimizer(self, model: Any = None) -> Any:
        """Gives each layer a group of its own if each has its own rate."""
        optimizer = super().create_optimizer(model)
        if self.config.trainable.schedule == "freezeout":
            split_by_layer(optimizer, self.model.named_parameters())
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Adds the one schedule that transformers lacks, and rates by layer."""
        if self.config.optimizer.schedule != "multistep":
            super().create_scheduler(num_training_steps, optimizer)
        else:
            from torch.optim.lr_scheduler import LambdaLR

            factor = partial(multistep_factor, optimizer=self.config.optimizer)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        if self.config.trainable.schedule == "freezeout":
            depth = self.policy.model.config.num_hidden_layers
            follow_freezeout(self.lr_scheduler, LayerSchedule.of(self.config, depth))
        return self.lr_scheduler


def _step_events(trainer: Any) -> Any:
    """Returns the callback that passes transformers' events on to the hooks."""
    from transformers import TrainerCallback

    optimizer_step = ExitStack()

    class StepEvents(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            trainer.before_optimizer_step()
            optimizer_step.enter_context(trainer.hooks.phase("optimizer"))

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            optimizer_step.close()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            # It comes after `on_step_end`: a row is written before anything else is done after that step.
            if logs and "loss" in logs:
                trainer.hooks.on_step(metric_row(logs, state.global_step), trainer)

    return StepEvents()
