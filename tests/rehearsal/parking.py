"""A training on the card whose layers learn in turn: where each layer's weights and states are between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Parts = dict[str, int]
"""Bytes by part of a layer: `card` and `host` masters, `rounded`, `original card`, `original host`, and states."""


@dataclass(frozen=True)
class Watched:
    """What a training left where."""

    code: int
    steps: tuple[dict[int, Parts], ...]
    """Of each boundary the parts of each layer."""
    allocated: tuple[int, ...]
    """Bytes of all tensors on the card at each boundary."""


def watch(words: tuple[str, ...]) -> Watched:
    """Runs on the card: trains, and looks after each boundary of layers."""
    import torch

    from lowmem_rl.training.learning_layers import LearningLayers
    from tests.rehearsal.child import lowmem

    plain, steps, allocated = LearningLayers.at_boundary, list[dict[int, Parts]](), list[int]()

    def at_boundary(self: LearningLayers, trainer: Any) -> None:
        plain(self, trainer)
        state = trainer.optimizer.state
        steps.append({layer: _parts(modules, state) for layer, modules in self.whole.modules.items()})
        allocated.append(torch.cuda.memory_allocated())

    LearningLayers.at_boundary = at_boundary  # type: ignore[method-assign]
    return Watched(lowmem("train", *words), tuple(steps), tuple(allocated))


def _parts(modules: list[Any], states: Any) -> Parts:
    """Counts matrices alone: norms are small and stay."""
    found: Parts = {}

    def add(name: str, tensor: Any) -> None:
        place = "card" if tensor.is_cuda else "host"
        found[f"{name} {place}"] = found.get(f"{name} {place}", 0) + tensor.nbytes

    for module in modules:
        weight, original = module.learned.weight, module.original_module.weight
        if weight.dim() == 2:
            add("original", original)
            if not module.shares_memory:
                add("copy", weight)
            if module.at_rest and not module.shares_memory:
                add("rounded", module.at_rest[0].weight)
            for state in (value for value in states.get(weight, {}).values() if isinstance(value, torch_tensor())):
                if state.numel() >= weight.numel():
                    add("state", state)
    return found


def torch_tensor() -> type:
    """Returns torch's class: this process imports it late."""
    import torch

    return torch.Tensor
