"""What sampling through `generate` holds: the KV cache of a wave, the prefill and the sampler; or vLLM's share."""

from collections.abc import Iterator
from math import ceil

from lowmem_rl.memory.activations import forward_layer
from lowmem_rl.memory.terms import Term, kv_bytes_per_token, linear_weights, other_weights, term, trained_params
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import GIB

_KV_STEP = 512
"""Tokens by which Unsloth grows its cache (unsloth 2026.10.9 models/llama.py, KV_CACHE_INCREMENT)."""
_SAMPLER_BYTES, _SORTING_BYTES = 10, 26
"""Bytes a row and token: logits 2, their float32 copy 4, probabilities 4; top-p sorts and adds values, 64-bit indices
and sums (transformers generation/logits_process.py)."""


def kv_cache(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """The cache of all rows at full length, and one layer's old copy while it grows."""
    new = workload.completion_tokens
    tokens = workload.prompt_tokens + (ceil(new / _KV_STEP) * _KV_STEP if workload.stack == "unsloth" else new)
    size = rows * tokens * kv_bytes_per_token(shape, workload.compute_bytes)
    formula = "rows (P + C) 2 (L + 1) k b" + (", C in steps of 512" if workload.stack == "unsloth" else "")
    return term("KV cache", size + size // shape.num_layers, "read from source", formula)


def _prompt_cache(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """The cache while the prompts are read."""
    size = rows * workload.prompt_tokens * kv_bytes_per_token(shape, workload.compute_bytes)
    return term("KV cache", size, "read from source", "rows P 2 L k b")


def first_token(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """The cache after the first token: each layer takes its grown one while the prompts' are all still held."""
    tokens = 2 * workload.prompt_tokens + _KV_STEP + 1
    size = rows * tokens * kv_bytes_per_token(shape, workload.compute_bytes)
    return term("KV cache", size, "read from source", "rows (2P + 513) 2 L k b")


def _decode_scores(workload: Workload, shape: ModelShape, rows: int, new: int) -> Term:
    """Attention scores of one token, for which each layer keeps a buffer."""
    tokens = workload.prompt_tokens + (ceil(new / _KV_STEP) * _KV_STEP if workload.stack == "unsloth" else new)
    layers = shape.num_layers if workload.stack == "unsloth" else 1
    size = layers * rows * shape.num_heads * tokens * workload.compute_bytes
    return term("decoding scores", size, "read from source", "L rows heads (P + C) b")


def prefill(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """One layer over the prompts of all rows at once."""
    return forward_layer(workload, shape, rows * workload.prompt_tokens, "prefill")


def sampler(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """Logits of one position, and what sampling makes of them."""
    logits = rows * shape.vocab_size
    return term("sampler", logits * _SAMPLER_BYTES, "read from source", "rows V x 10", upper=logits * _SORTING_BYTES)


def generate_moments(workload: Workload, shape: ModelShape, rows: int) -> Iterator[tuple[Term, ...]]:
    """Yields what is there at once: while prompts are read, at the first token with Unsloth, and at the last."""
    drawn = sampler(workload, shape, rows)
    yield _prompt_cache(workload, shape, rows), prefill(workload, shape, rows)
    if workload.stack == "unsloth":
        yield first_token(workload, shape, rows), _decode_scores(workload, shape, rows, _KV_STEP), drawn
    yield kv_cache(workload, shape, rows), _decode_scores(workload, shape, rows, workload.completion_tokens), drawn


_ENGINE_BYTES_PER_TOKEN = 76 * 1024
"""Activations of vLLM's profile run, a 4B model in bf16 (unsloth_zoo 2026.10.9 vllm_utils.py, table of logs)."""
_ENGINE_TOKENS = 8192
_GRAPH_BYTES = (0.15 * GIB, 1.0 * GIB)
_GRAPHS_ABOVE_SHARE = 2.28 * GIB
"""CUDA graphs are captured after the cache is sized, beyond the share: 67 + 39 of them for a 4B on an RTX 4090, with
vLLM's own account of the rest adding up to its share (unsloth issue 3542)."""
_DEFAULT_UTILISATION = {"unsloth": 0.5, "trl": 0.3}
"""unsloth 2026.10.9 loader.py, trl 1.15 grpo_config.py."""
_STANDBY_UTILISATION = ((40, 0.925), (25, 0.9), (20, 0.825), (14, 0.8), (10, 0.775), (0, 0.75))
"""With standby Unsloth sets the share itself: by the card's GiB, less 5 % (unsloth_zoo vllm_utils.py:4471)."""


def _vllm_engine(workload: Workload, shape: ModelShape) -> Term:
    """What vLLM holds without weights and cache: graphs, activations, a second copy of the adapter.

    Unsloth shares the weights with it; plain TRL loads them a second time.
    """
    low, high = _GRAPH_BYTES
    graphs = min(max(172 * shape.hidden_size * shape.num_layers * 4, low), high)
    tokens = min(_ENGINE_TOKENS, workload.rollout_rows * workload.row_tokens)
    adapter = 2 * trained_params(workload, shape) if workload.method != "full" else 0
    copy = _weights_bytes(workload, shape) if workload.stack == "trl" else 0
    size, formula = graphs + tokens * _ENGINE_BYTES_PER_TOKEN + adapter + copy, "graphs + activations + adapter"
    return term("vLLM engine", size, "measured elsewhere", f"{formula} [+ weights: TRL]", upper=1.2 * size)


def vllm_share(workload: Workload, shape: ModelShape, card: Card | None) -> tuple[Term, Term, Term]:
    """The engine, the cache that the wave needs, and what vLLM takes in addition because it may.

    vLLM stays within its share while one row has room: rows then wait, and a larger engine leaves a smaller cache.
    Unsloth lends it the policy's weights.
    """
    engine, row = _vllm_engine(workload, shape), workload.row_tokens * kv_bytes_per_token(shape, workload.compute_bytes)
    size, spare = workload.rollout_rows * row, 0
    if card:
        held = engine.expected_bytes + (_weights_bytes(workload, shape) if workload.stack == "unsloth" else 0)
        room = max(int(utilisation(workload, card) * card.offered_bytes) - held, row)
        size, spare = min(size, room), max(room - size, 0)
        grown = max(engine.upper_bytes - engine.expected_bytes - (size + spare - row), 0)
        engine = engine._replace(upper_bytes=engine.expected_bytes + max(grown, int(_GRAPHS_ABOVE_SHARE)))
    needed = term("vLLM's KV cache", size, "read from source", "rows (P + C) 2 L k b, or what its share holds")
    fill = term("vLLM's spare cache", spare, "read from source", "utilisation x card - the rest", elastic=True)
    return engine, needed, fill


def _weights_bytes(workload: Workload, shape: ModelShape) -> int:
    return linear_weights(workload, shape).expected_bytes + other_weights(workload, shape).expected_bytes


def utilisation(workload: Workload, card: Card) -> float:
    """Returns the share of the card that vLLM takes."""
    if workload.vllm_utilisation:
        return workload.vllm_utilisation
    if workload.standby and workload.stack == "unsloth":
        return next(share for gib, share in _STANDBY_UTILISATION if card.offered_bytes >= gib * GIB) * 0.95
    return _DEFAULT_UTILISATION[workload.stack]


def resident_engine(workload: Workload, shape: ModelShape, card: Card | None) -> tuple[Term, ...]:
    """What vLLM still holds while the model learns: all of it, or with standby all but the cache."""
    if workload.rollout_engine != "vllm":
        return ()
    share = vllm_share(workload, shape, card)
    return share[:1] if workload.standby else share
