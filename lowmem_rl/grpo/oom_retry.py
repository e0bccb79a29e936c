"""Repeating an optimizer step from its beginning, after memory ran out in the middle of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.rng import restore_rng, rng_states
from lowmem_rl.memory.terms import UNDO_BYTES

TOKEN_MEANS = ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
"""Metrics of TRL's that are means over a micro-batch's tokens."""


@dataclass
class StepSnapshot:
    """What a step changes apart from gradients, as it was before."""

    random: Mapping[str, Any]
    """Random states: dropout draws from them."""
    logged: Mapping[str, int]
    """Values that TRL had collected for the step's row, by name."""
    given: Tensor | None = None
    """Loss (scalar) that the trainer has been given since: it adds up what each slot returns."""
    tokens: int = 0
    """Completion tokens of the micro-batches since."""

    @classmethod
    def of(cls, metrics: Mapping[str, list[float]]) -> "StepSnapshot":
        """Captures the present state; TRL's `metrics` are those of training."""
        return cls(rng_states(), {name: len(values) for name, values in metrics.items()})

    def restore(self, metrics: Mapping[str, list[float]]) -> None:
        """Restores random states and metrics."""
        restore_rng(self.random)
        for name, values in metrics.items():
            del values[self.logged.get(name, 0) :]
        self.tokens = 0

    def merge_token_means(self, metrics: Mapping[str, list[float]], tokens: int) -> None:
        """Merges the means over the last micro-batch, which held `tokens`, with those over the step's earlier ones.

        TRL averages them as if all held as many: cut by length, a few short rows would count like many long ones.
        """
        for name in TOKEN_MEANS:
            values = metrics.get(name, [])
            if len(values) > self.logged.get(name, 0) + 1:
                last = values.pop()
                if tokens:  # over none the mean is no number
                    share = tokens / (self.tokens + tokens)
                    values[-1] = last if share == 1 else values[-1] + (last - values[-1]) * share
        self.tokens += tokens


def atomic_step(optimizer: type, retry: Callable[[str], None]) -> type:
    """Returns a subclass of an optimizer's class whose `step` happens once or not at all, repeated after an OOM.

    A step that fails has changed what came before the failure: states allocated for some weights and none for others,
    counters without their update, with bitsandbytes some of the weights. `retry` gets the reason, and may raise.
    """

    class AtomicStep(optimizer):
        def step(self, closure: Any = None) -> Any:
            take = super().step
            if _allocates_nothing(self):
                return take(closure)
            while isinstance(before := catch_oom(lambda: OptimizerSnapshot.of(self)), OutOfMemory):
                retry(before.why)
            while isinstance(found := catch_oom(lambda: take(closure)), OutOfMemory):
                before.restore(self)  # from then on it is as good as a new one
                retry(found.why)
            return found

    # transformers knows bitsandbytes' classes by their printed name.
    AtomicStep.__module__, AtomicStep.__qualname__ = optimizer.__module__, optimizer.__qualname__
    AtomicStep.__name__ = optimizer.__name__
    return AtomicStep


def _learning(optimizer: Any) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]


def _is_large(weights: Iterable[Tensor]) -> bool:
    return sum(weight.nbytes for weight in weights) > UNDO_BYTES


def _allocates_nothing(optimizer: Any) -> bool:
    """Returns whether a step over much has all its states: bitsandbytes' and fused steps then work in place."""
    learning = _learning(optimizer)
    is_in_place = optimizer.defaults.get("fused") or type(optimizer).__module__.startswith("bitsandbytes")
    return bool(is_in_place) and _is_large(learning) and all(weight in optimizer.state for weight in learning)


@dataclass(frozen=True, slots=True)
class OptimizerSnapshot:
    """Trainable weights and the optimizer's state of each, copied where they are, for as long as a step takes.

    The alternatives: in host RAM the adapter and the 8-bit states of a 7B model, rank 16, are 1,600 blocking copies
    and 240 MB over the bus in each step. Without a copy a step that has failed cannot be undone. On the card it is one
    join for each type of number, 240 MB that are read and written once (under 1 ms at 600 GB/s), at the one moment of
    a step at which no activations are held: the memory estimate has it as a term of its optimizer phase. Paged states
    are host memory to torch, and their copy is, too; bitsandbytes pages those of weights of 100,000 numbers and more,
    which most factors of rank 16 have not.
    """

    copies: "JoinedCopies"
    states: tuple[tuple[Tensor, dict[str, Any] | None], ...]
    """Each weight, and what the optimizer held for it: the very tensors, whose numbers are in `copies`."""

    @classmethod
    def of(cls, optimizer: Any) -> "OptimizerSnapshot":
        """Copies the present state of what this step may change: a weight without gradients rests."""
        weights = _learning(optimizer)
        states = [(weight, dict(optimizer.state[weight]) if weight in optimizer.state else None) for weight in weights]
        held = (value for _, state in states for value in (state or {}).values() if isinstance(value, Tensor))
        return cls(JoinedCopies.of([*weights, *held], to_host=_is_large(weights)), tuple(states))

    def restore(self, optimizer: Any) -> None:
        """Writes it back into the same memory; states that were not there are removed."""
        self.copies.write_back()
        for weight, state in self.states:
            if state is None:
                optimizer.state.pop(weight, None)
            else:
                optimizer.state[weight] = dict(state)


@dataclass(frozen=True, slots=True)
class JoinedCopies:
    """Tensors and their numbers at some moment, those of one device and type joined in one tensor."""

    joined: tuple[tuple[tuple[Tensor, ...], Tensor], ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor], *, to_host: bool = False) -> "JoinedCopies":
        """Copies each tensor once: bitsandbytes shares a table of numbers among all weights."""
        kinds: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor
        if to_host:  # one by one: joined on the card they would take as much again there
            single = [one for kind in kinds.values() for one in kind.values()]
            return cls(tuple(((one,), one.detach().reshape(-1).to("cpu", copy=True)) for one in single))
        return cls(tuple((tuple(kind.values()), _join(kind.values())) for kind in kinds.values()))

    def write_back(self) -> None:
        """Gives each tensor the numbers that it had."""
        for tensors, numbers in self.joined:
            parts = numbers.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))


def _join(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
