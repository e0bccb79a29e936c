"""TRL's own loss and advantages on given log-probabilities, without a model."""

from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

GROUP, PROMPTS, TOKENS = 8, 4, 20
EPSILON_OF_TRL = 1e-4


def off_policy_batch() -> dict[str, Any]:
    """Returns a batch with ratios far outside the clip range, completions of all lengths, and KL."""
    torch.manual_seed(0)
    rows = GROUP * PROMPTS
    lengths = torch.randint(1, TOKENS + 1, (rows, 1))
    mask = (torch.arange(TOKENS)[None] < lengths).double()
    old = torch.randn(rows, TOKENS).double() * 0.3 - 1
    new, ref = old + torch.randn(rows, TOKENS) * 0.8, old + torch.randn(rows, TOKENS) * 0.3
    rewards = torch.randint(0, 3, (PROMPTS, GROUP)).double()
    tensors = {"log_probs": new, "old": old, "ref": ref, "mask": mask, "rewards": rewards}
    advantages = advantages_of(rewards, scaled=True).flatten()
    return {name: tensor.tolist() for name, tensor in (tensors | {"advantages": advantages}).items()}


def advantages_of(rewards: Tensor, *, scaled: bool) -> Tensor:
    """Returns TRL 1.15's advantages of groups (prompts, group size)."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + EPSILON_OF_TRL) if scaled else centred


def trl_gradient(batch: Mapping[str, Any], loss: str, beta: float, max_tokens: int) -> Tensor:
    """Returns the gradient of `trl.GRPOTrainer._compute_loss` by the log-probabilities, clipped at 0.2."""
    from trl import GRPOTrainer

    new, old, ref, advantages, mask = (
        torch.tensor(batch[name], dtype=torch.float64) for name in ("log_probs", "old", "ref", "advantages", "mask")
    )
    new.requires_grad_(True)
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= {
        "loss_type": loss, "beta": beta, "epsilon_low": 0.2, "epsilon_high": 0.2,
        "importance_sampling_level": "token", "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None,
        "aux_loss_enabled": False, "use_vllm": False, "_entropy_bonus_enabled": False,
        "current_gradient_accumulation_steps": 1, "max_completion_length": max_tokens,
        "model": SimpleNamespace(training=True), "_metrics": {"train": defaultdict(list)},
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        "accelerator": SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x),
        "_get_per_token_logps_and_entropies": lambda *args, **kwargs: (new, torch.zeros_like(new), None),
    }  # fmt: skip
    ids = torch.zeros_like(mask).long()
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": torch.ones_like(ids[:, :1]), "completion_ids": ids,
        "completion_mask": mask, "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    (gradient,) = torch.autograd.grad(trainer._compute_loss(None, inputs), new)
    return gradient
