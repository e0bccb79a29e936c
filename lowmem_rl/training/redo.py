"""Taking an optimizer step again from its beginning, after memory ran out in the middle of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.engine.out_of_memory import OutOfMemory, tried

TOKEN_MEANS = ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
"""Metrics of TRL's that are means over a micro-batch's tokens."""


@dataclass
class StepStart:
    """What the micro-batches of a step change besides gradients, as it was before the first of them."""

    random_states: tuple[Tensor, ...]
    """Of the CPU, and of the card where there is one: dropout's."""
    logged: Mapping[str, int]
    """Values that TRL had put aside for the step's row, by name."""
    told: Tensor
    """Loss that the trainer has been told of since: it adds up what each slot returns."""
    tokens: int = 0
    """Completion tokens of the micro-batches since."""

    @classmethod
    def of(cls, metrics: Mapping[str, list[float]], device: torch.device) -> "StepStart":
        """Remembers the present state; TRL's `metrics` are those of training."""
        states = (torch.get_rng_state(), *((torch.cuda.get_rng_state(device),) if device.type == "cuda" else ()))
        logged = {name: len(values) for name, values in metrics.items()}
        return cls(states, logged, torch.zeros((), device=device))

    def restore(self, metrics: Mapping[str, list[float]], device: torch.device) -> None:
        """Puts random states and metrics back."""
        torch.set_rng_state(self.random_states[0])
        for state in self.random_states[1:]:
            torch.cuda.set_rng_state(state, device)
        for name, values in metrics.items():
            del values[self.logged.get(name, 0) :]
        self.tokens = 0

    def weigh(self, metrics: Mapping[str, list[float]], tokens: int) -> None:
        """Joins the means over the last micro-batch, which held so many tokens, with those over the step's earlier.

        TRL averages what stands there as if all held as many: cut by length, a few short rows would count like many
        long ones.
        """
        for name in TOKEN_MEANS:
            values = metrics.get(name, [])
            if len(values) > self.logged.get(name, 0) + 1:
                last = values.pop()
                if tokens:  # over none the mean is no number
                    share = tokens / (self.tokens + tokens)
                    values[-1] = last if share == 1 else values[-1] + (last - values[-1]) * share
        self.tokens += tokens


def make_whole(optimizer: Any, again: Callable[[str], None], went_on: Callable[[], None]) -> None:
    """Makes the optimizer's `step` happen once or not at all, and again after its memory ran out.

    A step that fails has changed what came before the failure: states allocated for some weights and none for others,
    counters without their update, with bitsandbytes a number of weights. `again` hears why, and may raise.
    """
    step = optimizer.step.__func__

    def whole_step(self: Any, closure: Any = None) -> Any:
        before = Snapshot.of(self)
        while isinstance(found := tried(lambda: step(self, closure)), OutOfMemory):
            before.restore(self)
            again(found.why)
        went_on()
        return found

    optimizer.step = MethodType(whole_step, optimizer)  # schedulers ask for a bound method


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Trainable weights and the optimizer's state of each, in host RAM: a LoRA's are small."""

    weights: tuple[Tensor, ...]
    states: tuple[Mapping[str, Any] | None, ...]

    @classmethod
    def of(cls, optimizer: Any) -> "Snapshot":
        """Copies the present state."""
        weights = list(_weights(optimizer))
        states = (optimizer.state.get(weight) for weight in weights)
        return cls(
            tuple(_copy(weight) for weight in weights),
            tuple(state and {name: _copy(value) for name, value in state.items()} for state in states),
        )

    def restore(self, optimizer: Any) -> None:
        """Writes it back into the same memory; states that were not there are removed."""
        for weight, old, state in zip(_weights(optimizer), self.weights, self.states, strict=True):
            weight.data.copy_(old)
            if state is None:
                optimizer.state.pop(weight, None)
            else:
                _write(optimizer.state[weight], state)


def _weights(optimizer: Any) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _write(state: dict[str, Any], old: Mapping[str, Any]) -> None:
    for name, value in old.items():
        if isinstance(value, Tensor):
            state[name].copy_(value)
        else:
            state[name] = value
    for name in state.keys() - old.keys():
        del state[name]
