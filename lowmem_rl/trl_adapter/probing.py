"""A trainer that only looks: it samples, scores and computes gradients as any other, and moves no weight."""

from collections.abc import Iterator
from typing import Any

import torch

from lowmem_rl.engine.layer_probe import GradientSums
from lowmem_rl.errors import TrainingError
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.grpo.micro_batches import cut_by_prompt
from lowmem_rl.trl_adapter.update import UpdateMixin

_FLATTER = 16.0
"""What float16's loss scale is divided by if a gradient overflows."""


class ProbingMixin(UpdateMixin):
    """Comes before the trainer's own mixins; a rollout is one step."""

    gradients: GradientSums
    step: int

    def _micro_batches(self, slots: range) -> Iterator[Batch]:
        """Yields all micro-batches of a step in its first slot, prompt by prompt; reads the gradient of each prompt."""
        if slots.start % self.args.gradient_accumulation_steps:
            return
        self.gradients.begin_round()
        for parts in cut_by_prompt(self.rollout, self.batch_plan):
            yield from parts
            self.gradients.add_prompt(self._loss_scale)

    @property
    def _loss_scale(self) -> float:
        scaler = self.accelerator.scaler
        return float(scaler.get_scale()) if scaler is not None else 1.0

    def _clip_grad_norm(self, model: Any) -> Any:
        """Ends the round; nothing is clipped. A float16 gradient that overflows is computed again, at a lower scale.

        Raises `TrainingError` if the gradient is no number at any scale.
        """
        while not self.gradients.is_finite and self._loss_scale > 1:
            self.accelerator.scaler.update(self._loss_scale / _FLATTER)
            self.repeat_gradient()
        if not self.gradients.is_finite:
            what = f"Round {self.step + 1} of the selection of layers: the gradient is not a number."
            raise TrainingError(what, hint="Set model.dtype=float32, or trainable.select=snr, which needs no gradient.")
        self.gradients.end_round()
        return torch.zeros(())

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> Any:
        """Returns an optimizer that leaves the weights alone."""
        return _NoStep, {"lr": args.learning_rate}


class _NoStep(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        return None


def probing(gradients: GradientSums) -> type:
    """Returns the kind of trainer that adds what it computes to `gradients`."""
    return type("Probing", (ProbingMixin,), {"gradients": gradients})
