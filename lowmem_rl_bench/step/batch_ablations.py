"""Our micro-batches with one of their savings off."""

from dataclasses import replace
from typing import Any

import torch

from lowmem_rl.grpo.batch import Batch, take_rows, with_values
from lowmem_rl.grpo.micro_batches import BatchPlan, MicroBatches


def ablation_mixins(off: str | None) -> tuple[type, ...]:
    """Returns the mixins that make a trainer split rollouts as the arm requires."""
    if off == "sorted and trimmed":
        return (_Untrimmed,)
    off_fields = {"dead rows out": "drops_dead_rows", "prompts trained on once": "shares_prompts"}
    return (type("Ablation", (_PlanField,), {"field": off_fields[off]}),) if off in off_fields else ()


class _PlanField:
    """Turns one field of the batch plan off."""

    field: str
    batch_plan: BatchPlan

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        off: Any = {self.field: False}
        self.batch_plan = replace(self.batch_plan, **off)


def _untrimmed_cut(batch: Batch, batch_plan: BatchPlan, seed: int) -> MicroBatches:
    """Splits the live rows as TRL splits all: shuffled, `micro_batch` at a time, as wide as the rollout's longest row.

    For one optimizer step and the loss `dapo`, whose sum over rows does not depend on the split.
    """
    rows, size = len(batch["advantages"]), batch_plan.micro_batch
    live = batch["advantages"].nonzero()[:, 0]
    live = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))]
    parts = [take_rows(batch, live[start : start + size]) for start in range(0, len(live), size)]
    slots = [with_values(part, {"tokens": int(part["completion_mask"].sum())}) for part in parts]
    return MicroBatches((*slots, *[None] * (rows // size - len(slots))), rows - len(live))


class _Untrimmed:
    cut = staticmethod(_untrimmed_cut)
