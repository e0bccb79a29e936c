"""A small autograd of sizes: which tensors a list of operations takes from the allocator and gives back, in order.

An operation names its result, its inputs and what it keeps for the backward pass; when each tensor comes and goes
follows from that, as in PyTorch: without gradients a tensor goes after its last use, with them after the backward pass
of the operation that keeps it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lowmem_rl.memory.caching_allocator import Block, CachingAllocator


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on tensors; sizes are names in `Tape.sizes`. Without inputs its result is a constant."""

    result: str
    size: str
    inputs: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    """What the backward pass needs."""
    scratch: tuple[str, ...] = ()
    """Sizes that are there only while the operation runs, forward and backward."""
    backward_scratch: tuple[str, ...] = ()
    """The same of the backward pass alone."""
    in_place: bool = False
    """The gradients of the inputs take the place of the inputs."""


Operations = tuple[Operation, ...]


@dataclass(slots=True)
class Tape:
    """Runs operations on an allocator, forward and backward."""

    allocator: CachingAllocator
    sizes: Mapping[str, int]
    """Bytes by the name of a size."""
    held: dict[str, Block] = field(default_factory=dict)

    def take(self, name: str, size: str) -> None:
        self.held[name] = self.allocator.allocate(self.sizes[size])

    def drop(self, *names: str) -> None:
        for name in names:
            self.allocator.free(self.held.pop(name))

    def pass_through(self, *sizes: str) -> None:
        """Takes blocks together and gives them back."""
        for block in [self.allocator.allocate(self.sizes[size]) for size in sizes]:
            self.allocator.free(block)

    def forward(self, operations: Operations, *, keep: bool) -> None:
        """Runs operations; outer inputs and the last result stay, and with `keep` what their backward pass needs."""
        left = Counter(name for one in operations for name in one.inputs)
        kept = {name for one in operations for name in one.keeps} if keep else set()
        inner = {one.result for one in operations[:-1]} - kept
        for one in operations:
            self.pass_through(*one.scratch)
            self.take(one.result, one.size)
            for name in one.inputs:
                left[name] -= 1
                if not left[name] and name in inner:
                    self.drop(name)

    def backward(self, operations: Operations, outer: Mapping[str, str]) -> None:
        """Runs the backward passes, last first: the last result's gradient is there, those of `outer` inputs stay.

        `outer` has the sizes of inputs that no operation makes.
        """
        sizes = {**outer, **{one.result: one.size for one in operations if one.inputs}}
        left = Counter(name for one in operations for name in one.keeps)
        for one in reversed(operations):
            if not one.inputs:
                continue
            self.pass_through(*one.scratch, *one.backward_scratch)
            for name in filter(sizes.__contains__, one.inputs):
                self._add_gradient(name, sizes[name], in_place=one.in_place)
            self.drop(f"d {one.result}")
            for name in one.keeps:
                left[name] -= 1
                if not left[name] and name in self.held:
                    self.drop(name)

    def _add_gradient(self, name: str, size: str, *, in_place: bool) -> None:
        if in_place:
            self.held[f"d {name}"] = self.held.pop(name)
        elif f"d {name}" in self.held:  # added to the one that is there
            self.pass_through(size)
        else:
            self.take(f"d {name}", size)
