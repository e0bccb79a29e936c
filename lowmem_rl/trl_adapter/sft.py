"""TRL's SFTTrainer over the policy: the same weights learn as in GRPO, from given completions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.logprobs import Encoded
from lowmem_rl.engine.policy import Policy
from lowmem_rl.trl_adapter.grpo_args import device_arguments, optimizer_of

_IGNORED = -100
"""The label of a token that the loss leaves out, in transformers."""


@dataclass(frozen=True, slots=True)
class SftSettings:
    """How long, how fast, and with how many rows a step."""

    steps: int
    learning_rate: float
    rows: int


def sft_losses(
    policy: Policy,
    config: RunConfig,
    settings: SftSettings,
    encoded: Sequence[Encoded],
    out: Path,
    on_step: Callable[[int, float], None],
) -> list[float]:
    """Trains on the completions of encoded (prompt, completion) rows; returns the loss of each step, in nats a token.

    Only completion tokens count. `on_step` gets the number of a step that is done, and its loss.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []

    class Steps(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                on_step(int(state.global_step), losses[-1])

    learned = [(weight, weight.data) for weight in policy.model.parameters() if weight.requires_grad]
    trainer = SFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=SFTConfig(**sft_arguments(config, settings, policy, out)),
        train_dataset=Dataset.from_list([_row(*one) for one in encoded]),
        callbacks=[Steps()],
    )
    for weight, data in learned:  # TRL's constructor has rounded a quantised model's adapter to bfloat16
        weight.data = data.to(weight.device, torch.float32)
    trainer.train()
    return losses


def sft_arguments(config: RunConfig, settings: SftSettings, policy: Policy, out: Path) -> dict[str, Any]:
    """Returns the arguments of `trl.SFTConfig`; rows are not packed, as in GRPO's update."""
    optimizer = config.optimizer
    return {
        "output_dir": str(out),
        "seed": config.seed,
        "max_steps": settings.steps,
        "per_device_train_batch_size": min(config.micro_batch, settings.rows),
        "gradient_accumulation_steps": -(-settings.rows // min(config.micro_batch, settings.rows)),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.steps // 10,
        "optim": optimizer_of(optimizer, policy.device),
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "max_grad_norm": optimizer.max_grad_norm,
        "max_length": config.grpo.max_prompt_tokens + config.grpo.max_completion_tokens,  # no row is longer
        "packing": False,
        "padding_free": False,  # unset, Unsloth turns it on on a GPU
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **device_arguments(config, policy.device),
    }


def _row(prompt: Sequence[int], completion: Sequence[int]) -> dict[str, list[int]]:
    return {"input_ids": [*prompt, *completion], "labels": [*[_IGNORED] * len(prompt), *completion]}
