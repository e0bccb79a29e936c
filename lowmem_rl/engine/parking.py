"""What of a run's weights and optimizer states waits in host RAM, because the card does not compute with it now.

A layer that rests computes with 16 bits a weight, so the float32 copy that it learned in can wait; BAdam (arXiv
2404.02827) drops it, and at the learning rates of RL rounding would remove most of what a layer has learned. In 16 bit
the frozen original of a layer that has learned computes only as the base model. On a CPU card and host are one memory,
and nothing moves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.peft_model import ModelLike, layer_of
from lowmem_rl.memory.trained_set import parks_masters, parks_originals

HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Parking:
    """What of the layers that learn whole leaves the card."""

    masters: bool = False
    """The copies of layers that rest."""
    originals: bool = False
    """The originals of layers that have learned, except while the base model computes."""

    @classmethod
    def of(cls, config: RunConfig, device: Device) -> "Parking":
        """Returns what a run parks on a device."""
        return cls(device.is_gpu and parks_masters(config), device.is_gpu and parks_originals(config))


NOTHING = Parking()


def move(module: nn.Module, device: torch.device) -> None:
    """Moves a module's weights without a copy in both places afterwards; gradients are not moved.

    A tensor made under `inference_mode`, in which evaluations switch to the base model, could never learn again.
    """
    with torch.inference_mode(False):
        for weight in module.parameters():
            weight.data = weight.data.to(device)


class WholeLayers:
    """The modules of scheduled decoder layers that learn whole; none of a LoRA."""

    def __init__(self, model: ModelLike, layers: Sequence[int]) -> None:
        self.modules: dict[int, list[Any]] = {layer: [] for layer in layers}
        for name, module in model.named_modules():
            layer = layer_of(name)
            if layer in self.modules and hasattr(type(module), "rest"):
                self.modules[layer].append(module)

    def learn(self, layers: Sequence[int]) -> None:
        """Lets these learn; all others rest, and have left the card before one of these returns."""
        for layer, modules in self.modules.items():
            for module in modules if layer not in layers else ():
                module.rest()
        for layer in layers:
            for module in self.modules[layer]:
                module.learn()


_SHARED_TABLES = ("qmap1", "qmap2")
"""Of 8-bit states: tables that all weights share; they stay, and come from a checkpoint to where a weight is."""


def move_states(optimizer: Any, weights: Iterable[Any], device: torch.device) -> None:
    """Moves what the optimizer holds for each weight.

    PyTorch's step counts stay on the host unless its step is one kernel; CUDA itself moves paged states.
    """
    counts_on_host = not optimizer.defaults.get("fused")
    for state in (optimizer.state[weight] for weight in weights if weight in optimizer.state):
        for name, value in state.items():
            is_fixed = (name in _SHARED_TABLES and device == HOST) or (name == "step" and counts_on_host)
            if isinstance(value, torch.Tensor) and not is_fixed and not getattr(value, "is_paged", False):
                state[name] = value.to(device)
