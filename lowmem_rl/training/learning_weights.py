"""Which weights learn, and whether they move: adds `trainable_layers`, `trainable_numbers`, `lost_update_share`."""

from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.peft_model import ModelLike, layer_of
from lowmem_rl.storage.run_dir import Row

_SAMPLE = 2**16
"""Numbers that are compared, evenly over all that learn: a share's standard error is at most 0.002."""


class LearningWeights:
    """Compares weights before and after the optimizer's step, in the type in which they are stored.

    A number that has a gradient and keeps its value has lost its update: rounding has removed it. It needs no state: a
    resumed run compares the same steps.
    """

    def __init__(self, model: ModelLike) -> None:
        self.model = model
        self.before: list[tuple[Any, Any, Any]] = []
        """Of each tensor that learns a view of its sampled numbers, their values, and whether each has a gradient."""

    def before_optimizer_step(self) -> None:
        """Copies a sample of the weights."""
        learning = [weight for weight in self.model.parameters() if weight.requires_grad]
        stride = max(1, sum(weight.numel() for weight in learning) // _SAMPLE)
        self.before = []
        for weight in learning:
            if weight.grad is not None:
                sampled = weight.detach().flatten()[::stride]
                self.before.append((sampled, sampled.clone(), weight.grad.flatten()[::stride] != 0))

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Adds the step's figures; no share if nothing had a gradient, or if the step was skipped."""
        learning = {n: w for n, w in self.model.named_parameters(remove_duplicate=False) if w.requires_grad}
        layers = {layer for layer in map(layer_of, learning) if layer is not None}
        row["trainable_layers"] = text_of(tuple(sorted(layers)))
        row["trainable_numbers"] = sum(weight.numel() for weight in set(learning.values()))  # layers may share some
        if (share := self._lost_share()) is not None and not row.get("optimizer_skipped"):
            row["lost_update_share"] = share
        self.before = []

    def _lost_share(self) -> float | None:
        """Returns None without gradients, and if memory is too short to count: the row is begun, and a figure less is
        no reason to end the run."""
        found = catch_oom(self._count) if self.before else None
        return None if isinstance(found, OutOfMemory) else found

    def _count(self) -> float | None:
        import torch

        counts = [torch.stack((((now == then) & moves).sum(), moves.sum())) for now, then, moves in self.before]
        device = counts[0].device  # an embedding may be elsewhere
        # One copy for all: each waits for the card.
        lost, moving = torch.stack([count.to(device) for count in counts]).sum(0).tolist()
        return float(lost) / moving if moving else None
