"""Our GRPOTrainer: TRL's (on a GPU, Unsloth's rewriting of it) with thin overrides that call the rooms below.

The class is joined in a function, after Unsloth has patched TRL; joined earlier it would inherit from the unpatched
one. Only methods that survive the rewriting are overridden: Unsloth never calls `_compute_loss`, and replaces
`_get_per_token_logps_and_entropies`, which is only wrapped here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.checkpointing.trainer_state import StepBoundaryMixin
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, import_unsloth
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import stream_names
from lowmem_rl.engine.unsloth_shortcuts import given_up
from lowmem_rl.grpo.dynamic_sampling import dead_groups, other_prompts, replaced
from lowmem_rl.grpo.lr_schedule import multistep_factor
from lowmem_rl.grpo.micro_batches import Batch, BatchPlan
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.rollout_downsampling import down_sampled
from lowmem_rl.grpo.train_dataset import Prompt
from lowmem_rl.trl_adapter.call_replay import ReplayedCalls
from lowmem_rl.trl_adapter.grpo_args import grpo_arguments, unsloth_arguments
from lowmem_rl.trl_adapter.prefix_sharing import PrefixSharingMixin
from lowmem_rl.trl_adapter.update import UpdateMixin


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """What one call to a sampler found."""

    completion_ids: list[list[int]]
    log_probs: Any
    """Of each token where TRL's own sampling gives them."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """For the step's row."""


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """One round of sampling: per row the example, the sampled ids, and each reward's score (None: skipped)."""

    example_ids: Sequence[str]
    completion_ids: Sequence[Sequence[int]]
    scores: Sequence[Sequence[float | None]]


def make_trainer(
    policy: Policy,
    config: RunConfig,
    *,
    sampler: Sampler,
    dataset: Any,
    reward_functions: Sequence[Callable[..., list[float | None]]],
    prompt_tokens: Callable[[str], list[int]],
    callbacks: Sequence[Any],
    on_scored: Callable[[ScoredBatch], None],
    out: Path,
    choose: Callable[[Sequence[Prompt]], list[Prompt]] = list,
    recovery: OomPolicy | None = None,
) -> Any:
    """Returns a trainer over the policy, ready for `train()`.

    `prompt_tokens` gives the ids of an example's rendered prompt. `choose` may put other prompts in the place of
    those that the data set has for a round of sampling. Without a `recovery` an error for lack of memory passes.
    """
    import_unsloth()
    from trl import GRPOConfig

    learning = _weights_that_learn(policy.model)
    _leave_float32_alone(policy.device)
    trainer = trainer_class()(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=GRPOConfig(**trainer_arguments(config, policy.device, out)),
        train_dataset=dataset,
        reward_funcs=list(reward_functions),
        callbacks=list(callbacks),
    )
    trainer.config, trainer.on_scored, trainer.choose = config, on_scored, choose
    trainer.prompt_tokens = prompt_tokens
    trainer.sampler, trainer.layout = sampler, layout_of(config, policy.device)
    trainer.recovery, trainer.kept, trainer.given_up = recovery, ReplayedCalls(), given_up(policy.model)
    trainer.reward_funcs = [trainer.kept.wrapped(function) for function in trainer.reward_funcs]
    for weight, data in learning:
        weight.data = data.to(weight.device, torch.float32)
    return trainer


def _weights_that_learn(model: Any) -> list[tuple[Any, torch.Tensor]]:
    """Returns the weights that learn, each with its data, to be put back once TRL has cast them.

    TRL's constructor rounds a quantised model's adapter to bfloat16 (Unsloth takes that out on a GPU). bfloat16
    resolves 2^-8 of a weight: at a learning rate of 5e-6 nearly every update would round to nothing, and float16's
    gradient scaler refuses such parameters. Casting the rounded weights back would lose 16 bits of what was loaded.
    """
    return [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]


def _leave_float32_alone(device: Device) -> None:
    """Keeps Unsloth's trainer from computing a float32 run under bfloat16 autocast (unsloth/models/rl.py).

    The variable names the type of the weights that learn, "bfloat16" meaning: no autocast. Loading any model sets it
    to "float32", which means autocast, whatever `bf16` and `fp16` say.
    """
    if device.is_gpu and device.dtype == "float32":
        os.environ["UNSLOTH_MIXED_PRECISION"] = "bfloat16"


def trainer_arguments(config: RunConfig, device: Device, out: Path) -> dict[str, Any]:
    """Returns all arguments of the GRPOConfig that is in force on this device."""
    return grpo_arguments(config, device, out) | unsloth_arguments(config, device)


def layout_of(config: RunConfig, device: Device) -> BatchPlan:
    """Returns how the run's rollouts are cut into micro-batches."""
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


def trainer_class() -> type:
    """Returns the trainer's class, over the GRPOTrainer that TRL shows now."""
    from trl import GRPOTrainer

    # Unsloth's rewriting has a log-prob method of its own, with kernels that share prompts.
    plain = GRPOTrainer.__module__.startswith("trl.")
    ours = (SamplingMixin, StepBoundaryMixin, PrefixSharingMixin) if plain else (SamplingMixin, StepBoundaryMixin)
    return type("LowMemTrainer", (*ours, GRPOTrainer), {})


class SamplingMixin(UpdateMixin):
    """What is ours."""

    config: RunConfig
    sampler: Sampler
    prompt_tokens: Callable[[str], list[int]]
    choose: Callable[[Sequence[Prompt]], list[Prompt]]
    on_scored: Callable[[ScoredBatch], None]
    round = 0
    """Rounds of resampling that came before in this step."""
    sampled_at = -1
    """The micro-batch before which was sampled last."""

    def _sample_if_due(self, generation_batch: Any) -> None:
        is_due = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        if self._buffered_inputs is None or (is_due and self.sampled_at != self._step):
            found = self.whole_round(lambda: self.lay_out(self._sampled(generation_batch), self.state.global_step))
            self._metrics["train"]["dead_rows"].append(found.dead_rows)
            self.sampled_at = self._step

    def _sampled(self, generation_batch: Any) -> Batch:
        grpo = self.config.grpo
        self.round = 0
        asked = self.kept.run(lambda: self.choose(generation_batch))
        rollout = self._with_signal(asked, self._generate_and_score_completions(asked))
        if grpo.update_rows is not None:
            scaled, counts_rows = grpo.scale_rewards == "group", grpo.loss in ("grpo", "dr_grpo")
            rollout = down_sampled(rollout, grpo.group_size, grpo.update_rows, scaled=scaled, counts_rows=counts_rows)
        return rollout

    def _with_signal(self, generation_batch: Any, rollout: Batch) -> Batch:
        """Replaces dead groups in as many rounds as the config allows: none by default."""
        asked, size = {row["example_id"] for row in generation_batch}, self.config.grpo.group_size
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
        return f"{self.config.seed}/{self.state.global_step}/{self.round}"

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
        if self.sampler.is_ours:
            sample = partial(self._sample_ourselves, prompt_ids)
        else:
            sample = partial(self._sample_through_trl, prompt_ids, images, multimodal_fields, num_generations)
        found = self.kept.run(sample)
        self.kept.has_completions = True
        for name, value in found.metrics.items():
            self._metrics["train"][name].append(value)
        return found.completion_ids, found.log_probs

    def _sample_ourselves(self, prompt_ids: list[list[int]]) -> SampledBatch:
        sampled = self.sampler.rollout(prompt_ids, stream_names(self._stream, len(prompt_ids)))
        fell_back = {"sampler_fell_back": 1.0} if self.sampler.is_off else {}
        return SampledBatch([row.ids for row in sampled], None, {"rollout_gap": self.sampler.gap or 0.0} | fell_back)

    def _sample_through_trl(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int
    ) -> SampledBatch:
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

        if self.use_vllm:  # it plans its own waves
            return SampledBatch(*sample(prompt_ids))
        # Tried again in other waves, `generate` draws other completions, which are as good.
        rows = self.config.rollout_rows
        return SampledBatch(*(self.recovery.rollout.run(waves, rows) if self.recovery else waves(rows)))

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Any:
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rows = [[None if score != score else score for score in row] for row in scores.tolist()]
        batch = ScoredBatch([row["example_id"] for row in inputs], completion_ids_list, rows)
        self.kept.run(lambda: self.on_scored(batch))
        return scores

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Adds the one schedule that transformers lacks."""
        if self.config.optimizer.schedule != "multistep":
            return super().create_scheduler(num_training_steps, optimizer)
        from torch.optim.lr_scheduler import LambdaLR

        factor = partial(multistep_factor, optimizer=self.config.optimizer)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler
