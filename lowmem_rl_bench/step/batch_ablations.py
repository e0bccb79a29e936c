"""Our micro-batches with one of their savings off."""

from dataclasses import replace
from typing import Any

import torch

from lowmem_rl.grpo.micro_batches import Batch, BatchPlan, MicroBatches, cut
from lowmem_rl.trl_adapter import trainer as trainer_module
from lowmem_rl.trl_adapter.prefix_sharing import PrefixSharingMixin


def use_layout(trainer: Any, off: str | None) -> None:
    """Lets the trainer cut as the arm says."""
    module: Any = trainer_module
    module.cut = untrimmed_cut if off == "sorted and trimmed" else cut
    if off == "dead rows out":
        trainer.layout = replace(trainer.layout, drops_dead_rows=False)
    if off == "prompts learnt from once":
        trainer.layout = replace(trainer.layout, shares_prompts=False)
        trainer._get_per_token_logps_and_entropies = super(
            PrefixSharingMixin, trainer
        )._get_per_token_logps_and_entropies


def untrimmed_cut(batch: Batch, layout: BatchPlan, seed: int) -> MicroBatches:
    """Cuts live rows as TRL cuts all: shuffled, `micro_batch` at a time, each as wide as the longest of the rollout.

    For one optimizer step and the loss `dapo`, whose sum over rows does not depend on the cut.
    """
    rows, size = len(batch["advantages"]), layout.micro_batch
    live = batch["advantages"].nonzero()[:, 0]
    live = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))]
    slots: list[Batch | None] = [_rows(batch, live[start : start + size]) for start in range(0, len(live), size)]
    return MicroBatches((*slots, *[None] * (rows // size - len(slots))), rows - len(live))


def _rows(batch: Batch, numbers: torch.Tensor) -> Batch:
    total = len(batch["advantages"])
    return {
        key: value[numbers] if isinstance(value, torch.Tensor) and value.dim() and len(value) == total else value
        for key, value in batch.items()
    }
