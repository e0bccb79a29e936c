"""How far PyTorch's pool grows beyond its tensors: training steps run on a simulated allocator.

Rows of one length ask for the same blocks in each step, and the pool grows by what no request fits. Rows of varying
lengths leave blocks of sizes that are not asked for again, unless segments can grow. `pool_shares` has the results in a
table: a step takes some 10 ms to simulate, and a pool does not grow evenly with a step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from lowmem_rl.memory.activations import chunk_rows
from lowmem_rl.memory.caching_allocator import Block, CachingAllocator
from lowmem_rl.memory.layer_operations import layer_operations, loss_operations, residual_bytes
from lowmem_rl.memory.operations import Operations, Tape
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

_RECOMPUTED = 2
"""Layers at the top whose backward pass is run, next to the lowest: those between ask for the same blocks again."""
_ORDERS, _STEPS = 3, 16
_TILE_ROWS, _TILE_WIDTH = 4096, 32_768
_FIRST = {"x": "residual"}
"""What a layer is given, and its size."""


def share_at_one_length(workload: Workload, shape: ModelShape) -> float:
    """Returns what the pool holds beyond the tensors' peak, over that peak, for rows of one length."""
    return _share(workload, shape, [workload.row_tokens] * 2)


def shares_at_varying_lengths(workload: Workload, shape: ModelShape) -> list[float]:
    """Returns the same for lengths uniform from a quarter of the longest, which comes once, in several orders."""
    most, shares = workload.row_tokens, []
    for order in range(_ORDERS):
        random = Random(order)
        lengths = [random.randint(max(most // 4, 1), most) for _ in range(_STEPS)]
        lengths[random.randrange(_STEPS)] = most
        shares.append(_share(workload, shape, lengths))
    return shares


def _share(workload: Workload, shape: ModelShape, lengths: Iterable[int]) -> float:
    pool = simulate(workload, shape, lengths)
    return pool.peak_reserved / pool.peak_allocated - 1


def simulate(
    workload: Workload, shape: ModelShape, lengths: Iterable[int], pool: CachingAllocator | None = None
) -> CachingAllocator:
    """Runs one micro-batch of each row length, in tokens, through the model; returns the pool, the given one or new."""
    pool = pool or CachingAllocator(expandable=workload.expandable_segments)
    layer, loss = layer_operations(workload), loss_operations(workload)
    for length in lengths:
        tape = Tape(pool, _sizes(workload, shape, length))
        _Step(tape, layer, loss, workload.checkpointing, shape.num_layers).run()
    return pool


@dataclass(frozen=True, slots=True)
class _Step:
    """Forward and backward of one micro-batch."""

    tape: Tape
    layer: Operations
    loss: Operations
    checkpointing: str
    layers: int

    def run(self) -> None:
        tape = self.tape
        tape.take("x", "residual")
        held = [self._forward(number) for number in range(self.layers)]
        tape.forward(self.loss, keep=True)
        tape.held["d loss"] = tape.held.pop("loss")
        tape.backward(self.loss, _FIRST)
        tape.held["d y"] = tape.held.pop("d x")
        tape.drop("x")
        for number in reversed(range(self.layers)):
            if self.checkpointing == "none" or number == 0 or number >= self.layers - _RECOMPUTED:
                self._backward(held[number])
            elif "x" in held[number]:
                tape.allocator.free(held[number]["x"])
        tape.drop("d y")

    def _forward(self, number: int) -> dict[str, Block]:
        """Runs a layer, puts its output in place of its input, and returns what stays for its backward pass."""
        tape = self.tape
        tape.forward(self.layer, keep=self.checkpointing == "none")
        output, held = tape.held.pop("y"), dict(tape.held)
        tape.held.clear()
        tape.held["x"] = output
        if self.checkpointing == "unsloth" and number < self.layers - 1:  # on the host
            tape.allocator.free(held.pop("x"))
        return held

    def _backward(self, held: dict[str, Block]) -> None:
        tape = self.tape
        tape.held |= held
        if "x" not in tape.held:
            tape.take("x", "residual")
        if self.checkpointing != "none":
            tape.forward(self.layer, keep=True)
            tape.drop("y")
        tape.backward(self.layer, _FIRST)
        tape.drop(*[name for name in tape.held if name != "d x"])
        tape.held["d y"] = tape.held.pop("d x")


def _sizes(workload: Workload, shape: ModelShape, row_tokens: int) -> dict[str, int]:
    """Returns the bytes of each size of an operation."""
    b, tokens = workload.compute_bytes, workload.micro_batch * row_tokens
    scored = tokens * workload.scored_tokens // workload.tokens
    each = {
        "hidden": shape.hidden_size,
        "query": shape.query_size,
        "key": shape.key_size,
        "mlp": shape.intermediate_size,
    }
    squares = shape.num_heads * workload.micro_batch * row_tokens**2
    chunk = 4 * shape.vocab_size * chunk_rows(scored, shape)
    if workload.stack == "trl":
        chunk = b * min(scored, _TILE_ROWS) * _TILE_WIDTH
    return {
        **{name: b * tokens * width for name, width in each.items()},
        **{f"wide {name}": 4 * tokens * width for name, width in each.items()},
        **{name: b * inputs * outputs for name, (inputs, outputs) in shape.linear_sizes.items()},
        "residual": residual_bytes(workload) * tokens * shape.hidden_size,
        "mask": b * workload.micro_batch * row_tokens**2,
        "square": b * squares,
        "wide square": 4 * squares,
        "logits": 4 * scored * shape.vocab_size,
        "narrow logits": b * scored * shape.vocab_size,
        "row logits": 4 * (scored // workload.micro_batch) * shape.vocab_size,
        "head": b * shape.vocab_size * shape.hidden_size,
        "chunk": chunk,
        "scalar": 4,
    }
