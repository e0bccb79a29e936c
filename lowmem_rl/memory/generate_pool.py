"""What transformers' `generate` leaves in PyTorch's pool: one rollout on a simulated allocator.

Each token puts every layer's keys and values into a longer block before the shorter one is given back (transformers
cache_utils.py, `DynamicLayer`); a padding mask copies them for every query head too (integrations/sdpa_attention.py).
So a rollout asks for blocks of all sizes up to its longest, and those of the sizes between stay in the pool.
"""

from lowmem_rl.memory.caching_allocator import Block, CachingAllocator
from lowmem_rl.memory.operations import Operation, Operations, Tape
from lowmem_rl.memory.terms import rollout_cache_bytes
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

_SAMPLER: Operations = (
    Operation("logits", "narrow logits", ("x",)),
    Operation("scores", "logits", ("logits",)),
    Operation("probabilities", "logits", ("scores",)),
    Operation("drawn", "logits", ("probabilities",)),
)
"""The last position in float32, softmax, and what `multinomial` divides it by."""


def share_of_cache(workload: Workload, shape: ModelShape) -> float:
    """Returns the pool after a rollout, over the cache."""
    pool = CachingAllocator(expandable=workload.expandable_segments)
    generate(pool, workload, shape)
    return pool.reserved / rollout_cache_bytes(workload, shape)


def generate(pool: CachingAllocator, workload: Workload, shape: ModelShape) -> None:
    """Samples one rollout, from an allocator that may hold blocks already; all rows have the full length."""
    layer, cache = _layer(workload, shape), [dict[str, Block]() for _ in range(shape.num_layers)]
    for length in range(workload.prompt_tokens, workload.row_tokens):
        new = length if length == workload.prompt_tokens else 1
        tape = Tape(pool, _sizes(workload, shape, new, length))
        tape.take("x", "hidden")
        for held in cache:
            _forward(tape, layer, held)
        tape.forward(_SAMPLER, keep=False)
        tape.drop("x", "drawn")
    for held in cache:
        for block in held.values():
            pool.free(block)


def _forward(tape: Tape, layer: tuple[Operations, Operations], cache: dict[str, Block]) -> None:
    """Runs a layer and puts its output in place of its input `x`."""
    before, after = layer
    tape.forward(before, keep=False)
    for name in ("k", "v"):
        longer = tape.allocator.allocate(tape.sizes["cache"])
        if name in cache:
            tape.allocator.free(cache[name])
        cache[name] = longer
        tape.drop(name)
    tape.forward(after, keep=False)
    tape.drop("x", "q")
    tape.held["x"] = tape.held.pop("y")


def _layer(workload: Workload, shape: ModelShape) -> tuple[Operations, Operations]:
    """Returns a layer's operations before and after the cache grows; 4-bit matrices are dequantised while in use."""

    def linear(result: str, size: str, of: str, name: str) -> Operation:
        return Operation(result, size, (of,), (), (name,) if workload.method == "qlora" else ())

    copied = ("k_copied", "v_copied") if shape.num_kv_heads < shape.num_heads else ()
    before = (
        Operation("norm1", "hidden", ("x",)),
        *(linear(name, size, "norm1", f"{name}_proj") for name, size in (("q", "query"), ("k", "key"), ("v", "key"))),
    )
    after = (
        *(Operation(name, "copied") for name in copied),
        Operation("mixed", "query", ("q", *copied)),
        linear("attended", "hidden", "mixed", "o_proj"),
        Operation("middle", "hidden", ("x", "attended")),
        Operation("norm2", "hidden", ("middle",)),
        linear("gate", "mlp", "norm2", "gate_proj"),
        Operation("active", "mlp", ("gate",)),
        linear("up", "mlp", "norm2", "up_proj"),
        Operation("product", "mlp", ("active", "up")),
        linear("down", "hidden", "product", "down_proj"),
        Operation("y", "hidden", ("middle", "down")),
    )
    return before, after


def _sizes(workload: Workload, shape: ModelShape, new: int, length: int) -> dict[str, int]:
    """Returns the bytes of each size while `new` positions join a cache that is then `length` long."""
    b, rows = workload.compute_bytes, workload.rollout_rows
    widths = {
        "hidden": shape.hidden_size,
        "query": shape.query_size,
        "key": shape.key_size,
        "mlp": shape.intermediate_size,
    }
    return {
        **{name: b * rows * new * width for name, width in widths.items()},
        **{name: b * inputs * outputs for name, (inputs, outputs) in shape.linear_sizes.items()},
        "cache": b * rows * length * shape.key_size,
        "copied": b * rows * length * shape.query_size,
        "narrow logits": b * rows * shape.vocab_size,
        "logits": 4 * rows * shape.vocab_size,
    }
