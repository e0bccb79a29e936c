"""What our own engine holds while it samples (`engine.continuous_batching`): a cache of full size from the start.

The prompts of a wave are read into it, rows that finish leave, and waiting ones take their slots: nothing here grows
with the group or with the number of rows, only with the wave.
"""

from collections.abc import Iterator
from math import ceil

from lowmem_rl.memory.activations import FUSED
from lowmem_rl.memory.terms import Term, kv_bytes_per_token, term, trained_bytes, trained_params
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

PREFILL_TOKENS = 8192
"""Most prompt tokens in one forward; `engine.continuous_batching` takes this and the next two from here."""
READ_AHEAD_TOKENS = 1024
"""Most tokens of prompts that are read already and wait for a slot."""
CHECK_EVERY = 8
"""Tokens between two checks for finished rows."""
_PICK_BYTES, _FILTERED_PICK_BYTES = 32, 46
"""Bytes a row and token of the vocabulary while a token is sampled (`engine.sampling`), all at once: logits, their
quotient by the temperature, log-softmax and its exp 4 each, that in float64 8 and its sums 8. Filters: instead of the
last three, transformers' top-p holds sorted values, 64-bit indices, softmax, sums, masks and the sort's buffer (34)."""
_SCORE_BYTES = 8
"""Float32 scores and their softmax, if no kernel fuses attention."""
_MOVED_SHARE = 1 / 16
"""Rows of the wave that move into others' slots at one check: an assumption; half of them is the most."""


def merged_copy(workload: Workload, shape: ModelShape) -> Term:
    """All linear layers in the compute type; in 16 bit with a separate adapter, its outer sides on diagonals."""
    size = shape.linear_params * workload.compute_bytes
    adapter = 3 * trained_params(workload, shape) * workload.compute_bytes if workload.compute_bytes < 4 else 0
    formula = "L (2Hq + 2Hk + 3HI) b"
    return term("merged copy of the weights", size, "read from source", formula, upper=size + adapter)


def joining(workload: Workload, shape: ModelShape) -> Term:
    """The widest pair of layers, gate and up, in their joined form while the copy is made."""
    size = 2 * shape.hidden_size * shape.intermediate_size * workload.compute_bytes
    return term("layers being joined", size, "read from source", "2 H I b")


def cache(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """Keys and values of all slots at full length, and the tokens between two checks for finished rows."""
    size = rows * (workload.row_tokens + CHECK_EVERY) * kv_bytes_per_token(shape, workload.compute_bytes)
    return term("KV cache", size, "read from source", "rows (P + C + 8) 2 L k b")


def prompts_read(workload: Workload, shape: ModelShape, prompts: float) -> Term:
    """Keys and values of a wave's distinct prompts, and the logits after each, until they are in the cache."""
    each = workload.prompt_tokens * kv_bytes_per_token(shape, workload.compute_bytes) + 4 * shape.vocab_size
    return term("prompts read", prompts * each, "read from source", "prompts (P 2 L k b + 4 V)")


def prompts_heads(workload: Workload, shape: ModelShape, prompts: float) -> Term:
    """The last forward's keys and values per layer, until they are joined (`decoder.prefill`)."""
    size = _prefill_tokens(workload, prompts) * kv_bytes_per_token(shape, workload.compute_bytes)
    return term("prompts being read", size, "read from source", "min(prompts P, 8192) 2 L k b")


def kept_states(workload: Workload, shape: ModelShape) -> Term:
    """What enters the lowest layer that learns at each token of a rollout, a group's prompt once."""
    groups = ceil(workload.kept_rows / workload.group_size)
    tokens = groups * workload.prompt_tokens + workload.kept_rows * (workload.completion_tokens + CHECK_EVERY)
    size, formula = tokens * shape.hidden_size * workload.compute_bytes, "(prompts P + rows (C + 8)) H b"
    return term("kept states", size, "read from source", formula)


def kept_here(workload: Workload, shape: ModelShape) -> Term:
    """That, if it is in the memory of which a run has a budget; on a card it is in host RAM unless asked otherwise."""
    found = kept_states(workload, shape)
    return found if workload.keeps_on_card else found._replace(expected_bytes=0, upper_bytes=0)


def states_seen(workload: Workload, shape: ModelShape) -> Term:
    """Those of each row's tokens since the last check for finished rows, and their copy in the order of rows."""
    rows = workload.rollout_rows if workload.kept_rows else 0
    size = 2 * rows * CHECK_EVERY * shape.hidden_size * workload.compute_bytes
    return term("states of the last tokens", size, "read from source", "2 rows 8 H b")


def states_read(workload: Workload, shape: ModelShape) -> Term:
    """The part of them with which a micro-batch starts."""
    size = workload.tokens * shape.hidden_size * workload.compute_bytes if workload.kept_rows else 0
    return term("states of a micro-batch", size, "read from source", "T H b")


def layer_pass(workload: Workload, shape: ModelShape, tokens: float) -> Term:
    """One layer over some tokens: the residual, and in the middle of the MLP what the decoder holds.

    Merged in float32 that is gate, up, the activation and the product; in 16 bit gate, up, the adapter's product and
    the sum; through PEFT's own layers gate, up, and the adapter's product in its width, scaled and summed.
    """
    b, merged = workload.compute_bytes, workload.rollout_weights == "merged"
    own = max(4 * b, 2 * b + 2 * trained_bytes(workload))
    wide = own if not merged else 6 * b if b < 4 else 4 * b
    size = tokens * (2 * b * shape.hidden_size + wide * shape.intermediate_size)
    return term("one layer's forward", size, "read from source", f"tokens (2 b H + {wide} I)", upper=1.25 * size)


def prompt_scores(workload: Workload, shape: ModelShape, prompts: float) -> Term:
    """Attention's squares over the prompts of one forward, if no kernel fuses attention.

    The memory-efficient kernel takes grouped queries since torch 2.14; before that PyTorch's math kernel runs.
    """
    squares = _SCORE_BYTES * _prefill_tokens(workload, prompts) * workload.prompt_tokens * shape.num_heads
    size = 0 if workload.attention in FUSED else squares
    upper = 0 if workload.attention == "flash" else squares
    return term("prompts' scores", size, "assumed", "min(prompts P, 8192) P heads 8", upper=upper)


def picker(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """The logits of a token for each row, and what sampling makes of them."""
    each = _FILTERED_PICK_BYTES if workload.filters_words else _PICK_BYTES
    return term("sampling logits", rows * shape.vocab_size * each, "read from source", f"rows V x {each}")


def moved_rows(workload: Workload, shape: ModelShape, rows: int) -> Term:
    """The copy of what moves into the slots of finished rows, layer by layer (`decoder.KVCache.move`)."""
    each = workload.row_tokens * kv_bytes_per_token(shape, workload.compute_bytes) // shape.num_layers
    size, formula = _MOVED_SHARE * rows * each, "rows / 16 (P + C) 2 k b"
    return term("rows on the move", size, "assumed", formula, upper=rows // 2 * each)


def peak_points(
    workload: Workload, shape: ModelShape, rows: int, prompts: int, ahead: float
) -> Iterator[tuple[Term, ...]]:
    """Yields what is there at once: while weights are copied, prompts read and put in, the first token, the last.

    `prompts` are the wave's, `ahead` those that are read before a slot is free for them.
    """
    copy = (merged_copy(workload, shape),) if workload.rollout_weights == "merged" else ()
    if copy:
        yield *copy, joining(workload, shape)
    waiting, all_prompts = prompts_read(workload, shape, ahead), prompts + ahead
    held, read = (*copy, cache(workload, shape, rows)), prompts_read(workload, shape, all_prompts)
    picked = picker(workload, shape, rows)
    heads, scores = prompts_heads(workload, shape, all_prompts), prompt_scores(workload, shape, all_prompts)
    together = _prefill_tokens(workload, all_prompts)
    earlier = prompts_read(workload, shape, max(all_prompts - together / max(workload.prompt_tokens, 1), 0.0))
    yield *held, earlier, heads, layer_pass(workload, shape, together), scores
    yield *held, read, heads
    yield *held, read, picked
    yield *held, waiting, layer_pass(workload, shape, rows), picked
    yield *held, waiting, moved_rows(workload, shape, rows)


def prompts_of(workload: Workload, rows: int) -> int:
    """Returns the distinct prompts that a wave begins with: the rows of a group are neighbours."""
    return ceil(rows / workload.group_size)


def prompts_ahead(workload: Workload, prompts: int) -> float:
    """Returns the most prompts that are read before a slot is free for them, in addition to a wave's `prompts`.

    Counted in prompts at the limit, also in parts of one: shorter ones fill the tokens.
    """
    return min(prompts, READ_AHEAD_TOKENS / max(workload.prompt_tokens, 1))


def _prefill_tokens(workload: Workload, prompts: float) -> float:
    return min(prompts * workload.prompt_tokens, max(PREFILL_TOKENS, workload.prompt_tokens))
