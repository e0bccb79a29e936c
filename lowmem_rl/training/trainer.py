"""Our GRPOTrainer: TRL's (on a GPU, Unsloth's rewriting of it) with four thin overrides.

The class is made in a function, after Unsloth has patched TRL; made earlier it would
inherit from the unpatched one. Only methods that survive the rewriting are overridden:
Unsloth never calls `_compute_loss` and replaces `_get_per_token_logps_and_entropies`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lowmem_rl.config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, import_unsloth
from lowmem_rl.training.dataset import Prompt
from lowmem_rl.training.schedule import multistep_factor
from lowmem_rl.training.trl_args import grpo_arguments, unsloth_arguments

OVERRIDDEN = ("_generate_and_score_completions", "_generate_single_turn", "_calculate_rewards", "create_scheduler")


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
    dataset: Any,
    reward_functions: Sequence[Callable[..., list[float | None]]],
    callbacks: Sequence[Any],
    on_scored: Callable[[ScoredBatch], None],
    out: Path,
    choose: Callable[[Sequence[Prompt]], list[Prompt]] = list,
) -> Any:
    """Returns a trainer over the policy, ready for `train()`.

    `choose` may put other prompts in the place of those that the data set has for a round of sampling.
    """
    import_unsloth()
    from trl import GRPOConfig

    trainer = trainer_class()(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=GRPOConfig(**trainer_arguments(config, policy.device, out)),
        train_dataset=dataset,
        reward_funcs=list(reward_functions),
        callbacks=list(callbacks),
    )
    trainer.config, trainer.on_scored, trainer.choose = config, on_scored, choose
    _keep_adapter_in_fp32(policy.model)
    return trainer


def _keep_adapter_in_fp32(model: Any) -> None:
    """Undoes TRL's cast of a quantised model's adapter to bfloat16, as Unsloth does on a GPU.

    bfloat16 resolves 2^-8 of a weight: at a learning rate of 5e-6 nearly every update would
    round to nothing, and float16's gradient scaler refuses such parameters.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def trainer_arguments(config: RunConfig, device: Device, out: Path) -> dict[str, Any]:
    """Returns all arguments of the GRPOConfig that is in force on this device."""
    return grpo_arguments(config, device, out) | unsloth_arguments(config, device)


def trainer_class() -> type:
    """Returns the trainer's class, made from the GRPOTrainer that TRL shows now."""
    from trl import GRPOTrainer

    class LowMemTrainer(GRPOTrainer):
        config: RunConfig
        on_scored: Callable[[ScoredBatch], None]
        choose: Callable[[Sequence[Prompt]], list[Prompt]]

        def _generate_and_score_completions(self, inputs: list[Prompt]) -> Any:
            return super()._generate_and_score_completions(self.choose(inputs))

        def _generate_single_turn(
            self,
            prompt_ids: list[list[int]],
            images: Any,
            multimodal_fields: Any,
            num_generations: int,
            has_tool_images: bool = False,
        ) -> tuple[list[list[int]], Any]:
            sample = partial(
                super()._generate_single_turn,
                images=images,
                multimodal_fields=multimodal_fields,
                num_generations=num_generations,
            )
            # vLLM plans its own waves.
            rows = len(prompt_ids) if self.use_vllm else self.config.rollout_rows
            waves = [sample(prompt_ids[i : i + rows]) for i in range(0, len(prompt_ids), rows)]
            if waves[0][1] is None:
                return [row for ids, _ in waves for row in ids], None
            return [row for ids, _ in waves for row in ids], [row for _, logps in waves for row in logps]

        def _calculate_rewards(
            self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
        ) -> Any:
            scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            rows = [[None if score != score else score for score in row] for row in scores.tolist()]
            self.on_scored(ScoredBatch([row["example_id"] for row in inputs], completion_ids_list, rows))
            return scores

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if self.config.optimizer.schedule != "multistep":
                return super().create_scheduler(num_training_steps, optimizer)
            from torch.optim.lr_scheduler import LambdaLR

            factor = partial(multistep_factor, optimizer=self.config.optimizer)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            return self.lr_scheduler

    return LowMemTrainer
