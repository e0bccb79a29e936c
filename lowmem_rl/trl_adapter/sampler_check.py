"""Compares a rollout's log-probs with those of the update's own forward: the same weights compute both.

Until the first optimizer step of a rollout nothing has moved, so the log-probs in its loss are those of the training
weights. What the update does not show is computed for the comparison (`Sampler.compare`): if rows without an advantage
leave too few, and always on a GPU, with dropout and with kept states.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowmem_rl.engine.continuous_batching import SampledCompletion
from lowmem_rl.engine.sampler import CHECKED_ROWS, Sampler
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.training.step import Hooks

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`


class SamplerCheckMixin(TrlTrainer):
    """Holds what is compared in the present step."""

    sampler: Sampler
    hooks: Hooks
    step: int
    sampled_after: int
    batch_read: Batch | None = None
    """The micro-batch whose loss is being computed."""
    compare_waiting: Callable[[], None] | None = None
    """Compares the present rollout; None if it has been compared."""
    gaps_seen: list[Tensor]
    """Of each micro-batch: sum of the distances in nats, tokens, rows (3,)."""

    def compare_later(self, prompts: Sequence[Sequence[int]], sampled: Sequence[SampledCompletion]) -> None:
        """Leaves the comparison of a rollout to the update."""
        self.compare_waiting = partial(self.sampler.compare, prompts[:CHECKED_ROWS], sampled[:CHECKED_ROWS])
        self.begin_comparing()

    def begin_comparing(self) -> None:
        """The gradient of a step is computed from its first micro-batch on."""
        self.gaps_seen = []

    def compare_micro_batch(self, log_probs: Tensor) -> None:
        """Compares the log-probs (rows, completion tokens) in the loss of a micro-batch whose rollout waits for it."""
        batch = self.batch_read
        if self.compare_waiting is None or batch is None or self.step != self.sampled_after:
            return
        if (sampled := batch.get("sampling_per_token_logps")) is None:
            return
        counted = batch["completion_mask"].bool()
        distance = (log_probs.detach()[counted].double() - sampled[counted].double()).abs().sum()
        self.gaps_seen.append(torch.stack((distance, counted.sum(), counted.any(1).sum())))

    def end_comparing(self) -> None:
        """Passes the gap to the sampler and the step's row, before the weights move."""
        if self.compare_waiting is None:
            return
        distance, tokens, rows = torch.stack(self.gaps_seen).sum(0).tolist() if self.gaps_seen else (0.0, 0, 0)
        if rows >= CHECKED_ROWS:
            self.sampler.take_gap(distance / tokens)
        else:
            with self.hooks.phase("rollout"):
                self.compare_waiting()
        self.compare_waiting = None
        for name, value in gap_metrics(self.sampler).items():
            self._metrics["train"][name].append(value)


def gap_metrics(sampler: Sampler) -> dict[str, float]:
    """Returns what the step's row says of the comparison."""
    fell_back: dict[str, Any] = {"sampler_fell_back": 1.0} if sampler.is_off else {}
    return {"rollout_gap": sampler.gap or 0.0} | fell_back
