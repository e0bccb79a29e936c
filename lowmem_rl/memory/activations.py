"""What the forward and backward passes of one micro-batch hold, by kernel and by checkpointing mode.

A decoder layer keeps some tensors for its backward pass (`saved`) and needs others while it runs (`transient`), both in
bytes a token. They were counted, not fitted: transformers' own in `plain_layer`, Unsloth's by reading which tensors its
functions save (unsloth 2026.10.9 kernels/fast_lora.py, models/llama.py).
"""

from dataclasses import replace
from math import ceil

from lowmem_rl.memory import dora, terms
from lowmem_rl.memory.plain_layer import Layer, copies_inputs, mlp_bytes, plain_layer, residual_bytes
from lowmem_rl.memory.terms import (
    Grade,
    Term,
    backward_layers,
    term,
    trained_layers,
    weight_bytes,
)
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import GIB

FUSED = ("flash", "efficient")
"""Attention that holds no squares of scores."""
_LAYER_UPPER = 1.16
"""Unsloth's published line of context against memory is 1.14 to 1.16 of what the tensors add up to
(unsloth.ai/docs/basics/unsloth-benchmarks): small buffers and slack, taken as the bound."""
_LOSS_UPPER = 1.25
"""Compilers and autotuning may hold a temporary more; an assumption."""


def layer_of(workload: Workload, shape: ModelShape) -> Layer:
    """Returns the bytes a token of one decoder layer in training; attention scores are a term of their own."""
    if workload.layer == "plain":
        found = plain_layer(workload, shape, _keys(workload, shape))
    else:
        found = {"unsloth": _unsloth_layer, "fused": _fused_layer}[workload.layer](workload, shape)
    return replace(found, saved=found.saved + dora.saved(workload, shape)) if workload.use_dora else found


def frozen_layer(workload: Workload, shape: ModelShape) -> Layer:
    """Returns the same of a layer above the lowest that learns, of which nothing learns: it passes gradients on."""
    return layer_of(replace(workload, lora_targets=(), whole_params=0, use_dora=False), shape)


def _unsloth_layer(workload: Workload, shape: ModelShape) -> Layer:
    """Saved: both norms' outputs, the middle residual, the output (4H), q, k, v, attention's output, gate and up.

    In GRPO attention's output is kept twice: packed rows of equal length are attended one by one and joined in a copy
    (unsloth 2026.10.9 utils/attention_dispatch.py, _sdpa_packed_segments); a single row never is (unsloth_zoo
    rl_replacements.py). The MLP's backward pass works in gate and up; it adds the gradient of their product, one coming
    in, one going out.
    """
    hidden, mlp, keys, b = shape.hidden_size, shape.intermediate_size, _keys(workload, shape), workload.compute_bytes
    norms = 2 * (shape.query_size + shape.key_size) if shape.qk_norm else 0  # inputs of Qwen3's two extra norms
    joins_rows = workload.loss == "grpo" and workload.attention in FUSED and workload.micro_batch > 1
    queries = 3 if joins_rows else 2
    # Without an adapter Unsloth leaves a layer its plain MLP, which keeps the activation, and the product if it learns.
    plain = 4 if workload.whole_params or workload.use_dora else 3
    products = 2 if workload.lora_targets and not workload.use_dora else plain
    saved = b * (4 * hidden + queries * shape.query_size + 2 * keys + products * mlp + norms / 2)
    saved += _copied_inputs(workload, shape)
    return Layer(saved, b * (mlp + 2 * hidden), f"b (4H + {queries}q + 2k + 2I) + b (I + 2H)")


def _copied_inputs(workload: Workload, shape: ModelShape) -> float:
    """What Unsloth's kernels keep of dropout, a mask of one byte a number (unsloth 2026.10.9 kernels/fast_lora.py), and
    what PEFT keeps without them: with biases, or if not all three have an adapter, q, k and v read a copy each
    (models/llama.py, patch_peft_model), where one norm's output is counted already."""
    if workload.use_dora:
        return 0.0
    adapted = [name for name in ("q_proj", "k_proj", "v_proj") if name in workload.lora_targets]
    has_kernel = len(adapted) == 3 and not shape.attention_bias
    copies = 0 if has_kernel or not (copies_inputs(workload) or workload.lora_dropout) else max(len(adapted) - 1, 0)
    masks = sum(size[0] for size in terms.adapted_sizes(workload, shape)) if workload.lora_dropout else 0
    return copies * shape.hidden_size * workload.compute_bytes + masks


def _fused_layer(workload: Workload, shape: ModelShape) -> Layer:
    """Fused norms and RoPE around a plain MLP: no float32 copies, and a frozen down projection keeps no input."""
    hidden, mlp, b = shape.hidden_size, shape.intermediate_size, workload.compute_bytes
    attention = b * (2 * shape.query_size + 2 * _keys(workload, shape))
    saved = b * 2 * hidden + attention + 3 * b * mlp + _dropped(workload, shape)
    return Layer(saved, b * (2 * hidden + 3 * mlp), "b (2H + 2q + 2k + 3I) + b (2H + 3I)")


def layer(workload: Workload, shape: ModelShape) -> Term:
    """The layer whose backward pass is running: recomputed, or saved by the forward pass already."""
    one = layer_of(workload, shape)
    size = max(workload.tokens * one.peak + _scores(workload, shape), _softmax(workload, shape))
    formula = f"T ({one.formula})" + ("" if workload.attention in FUSED else " + attention's squares")
    return _layer_term(workload, shape, size, formula)


def layer_at_matrix(workload: Workload, shape: ModelShape) -> Term:
    """The same layer while its last matrix passes the gradient on, before those of the MLP's two halves are made: the
    moment at which a dequantised matrix can matter."""
    one, passing = layer_of(workload, shape), 4 * shape.hidden_size + mlp_bytes(workload) * shape.intermediate_size
    size = workload.tokens * (one.saved + passing) + _scores(workload, shape)
    return _layer_term(workload, shape, size, "T (what a layer saves + 4H + bI)")


def _layer_term(workload: Workload, shape: ModelShape, size: float, formula: str) -> Term:
    if workload.checkpointing != "none":
        size += narrow_copies(workload) / max(trained_layers(workload, shape), 1)
        if terms.narrows_weights(workload):  # what learns whole takes the place of its original
            whole = workload.whole_params / max(trained_layers(workload, shape), 1)
            size += workload.compute_bytes * max(shape.layer_params - whole, 0)
    grade: Grade = "measured here" if workload.layer == "plain" else "read from source"
    return term("one layer's backward", size, grade, formula, upper=size * _LAYER_UPPER)


def kept_activations(workload: Workload, shape: ModelShape) -> Term:
    """What the forward pass leaves on the GPU for the layers below the current one."""
    hidden, layers, tokens = shape.hidden_size, backward_layers(workload, shape), workload.tokens
    b = residual_bytes(workload)
    if workload.checkpointing == "unsloth":
        # unsloth_zoo gradient_checkpointing.py: every input but the last goes to the host, two buffers bring them back.
        return term("activations kept", 3 * tokens * hidden * b, "read from source", "(2 staging + 1) T H b")
    if workload.checkpointing == "plain":
        each = {"sdpa": 1, "eager": b}.get(workload.attention, 0)  # of the mask: truth values, or numbers
        mask = workload.micro_batch * workload.row_tokens**2 * each
        return term("activations kept", layers * tokens * hidden * b + mask, "measured here", "L T H b [+ mask]")
    others = max(layers - 1, 0)  # the one whose backward pass is running is a term of its own
    learning = min(trained_layers(workload, shape) - 1, others)
    saved = learning * layer_of(workload, shape).saved
    if learning < others:
        saved += (others - learning) * frozen_layer(workload, shape).saved
    below = tokens * saved + others * _scores(workload, shape) + narrow_copies(workload)
    upper = below + others * _copied_keys(workload, shape)
    return term("activations kept", below, "measured here", "(L - 1) T x what a layer saves", upper=upper)


LOGIT_BYTES = {
    "in-place": 6.0,
    "kept": 6.7,
    "fused": 8.0,
    "full": 12.0,
    "held": 12.0,
    "divided": 12.0,
    "shifted": 14.0,
    "selective": 16.0,
}
"""Bytes a logit at the worst moment of the loss.

in-place: Unsloth before chunks wrote the gradient into the logits (2), of which accelerate made a float32 copy
(4; accelerate utils/operations.py, ConvertOutputsToFp32). kept: float32 chunks until the backward pass, 6.7 measured
(unsloth issue 4985). fused: 2 + 4 + 2. full: log-softmax 4, two gradients of 4 (12, measured here); held: in addition
the model's own logits, in the compute type; shifted: the 16-bit logits next to their shifted float32 copy. divided: TRL
before 1.0 and from 1.10 to 1.12 divides float32 logits by the temperature into a copy, and keeps that next to the rows'
gradients of log-sum-exp and what these are put together in, 4 each. selective: TRL 1.0 to 1.9 divides in place, in a
view; autograd's CopySlices takes the gradient, its copy, a clone of the view and the quotient, 4 each (trl 1.9.2 and
1.12 trainer/grpo_trainer.py, trl pull requests 5254 and 6554; both measured here)."""
_LIGER_ROW_BYTES = 12.0
"""Liger's GRPO loss takes one row after another, each as whole logits, and makes the gradient of the head even if it
is frozen: the sum so far next to the row's own (liger_kernel chunked_loss/fused_linear_ppo.py, `grad_weight`)."""
_IN_CHUNKS = ("chunked", "liger")
_COUNTED = ("full", "held", "divided", "selective")
_CHUNK_BYTES, _LEAST_ROWS, MOST_ROWS = 2 * GIB, 512, 4096
_CHUNK_LOGITS = 512 * 151_936
"""unsloth_zoo 2026.10.9 fused_losses/fused_linear.py:69-73, 140: what limits a chunk of float32 logits. Its rows cannot
be set: `unsloth_logit_chunk_multiplier` is read, but the fused log-probs do not use it."""
_CHUNK_LEAST = 2
"""Rows below which a chunk never shrinks (fused_linear.py and chunked_logprob.py)."""
_SPLIT_COLUMNS = 16_384
"""The same file's tiles, from 4096 rows on and on cards of up to 24.5 GiB: never wider than this."""
_FALLBACK_BYTES = 8
"""unsloth_zoo 2026.10.9 fused_losses/chunked_logprob.py:47-72, which runs if the fused kernels do not: a chunk's
float32 logits and their gradient."""
_TILE_ROWS, _TILE_WIDTH = 4096, 32768
"""trl 1.15 kernels/chunked_logprob.py: one tile of logits at a time, in the compute type, for any vocabulary."""


def loss(workload: Workload, shape: ModelShape) -> Term:
    """Final hidden states, logits, and the gradients of both.

    Unsloth keeps the final hidden state and its gradient; a plain norm also a float32 copy. With TRL's chunks only that
    copy is left: the scored rows are copied out of the hidden state. In full training the head's gradient is made here,
    by TRL's chunks in float32 first, then narrowed.
    """
    b, is_chunked, head = workload.compute_bytes, workload.logits == "chunked", 0
    each = 2 * b if workload.layer != "plain" else 4 if is_chunked else b + 4
    if workload.method == "full":
        head = shape.vocab_size * shape.hidden_size * (weight_bytes(workload) + (4 if is_chunked and b < 4 else 0))
    return _with_logits("loss", workload, shape, workload.tokens * shape.hidden_size * each, head)


def scoring(workload: Workload, shape: ModelShape) -> Term:
    """The loss's forward half alone: log-probs without gradients; of whole logits as the model returns them, in
    float32, and their log-softmax."""
    b, size = workload.compute_bytes, workload.scored_tokens * shape.vocab_size
    backward_alone = size * max(logit_width(workload) - (b + 8), 0) if workload.logits in _COUNTED else 0
    return _with_logits("log-probs", workload, shape, workload.tokens * shape.hidden_size * b - backward_alone)


def forward_layer(workload: Workload, shape: ModelShape, tokens: int, name: str) -> Term:
    """One layer without gradients: input, output, two norms, and the MLP's two halves."""
    wide = 4 * shape.hidden_size + 2 * shape.intermediate_size
    plain = 4 * shape.hidden_size + shape.intermediate_size * workload.compute_bytes  # float32 norm, activation
    size = tokens * (workload.compute_bytes * wide + (plain if workload.stack == "trl" else 0))
    formula = "tokens x b (4H + 2I)" + (" + tokens (4H + b I)" if workload.stack == "trl" else "")
    return term(name, size, "read from source", formula, upper=size * _LAYER_UPPER)


def all_groups(workload: Workload, shape: ModelShape) -> Term:
    """One layer's forward over a whole rollout, each group's prompt once (unsloth 2026.10.9 utils/prefix_grouper.py).

    Unsloth tries it if rows share prompts and falls back to micro-batches when memory runs out.
    """
    groups = ceil(workload.grouped_rows / workload.group_size)
    tokens = groups * workload.prompt_tokens + workload.grouped_rows * workload.completion_tokens
    return forward_layer(workload, shape, tokens, "all groups at once")._replace(elastic=True)


def saved_at_top(workload: Workload, shape: ModelShape) -> Term:
    """What the top layer has saved while the loss is computed: nothing of it is recomputed."""
    size = workload.tokens * layer_of(workload, shape).saved + _scores(workload, shape)
    upper = size + _copied_keys(workload, shape)
    return term("top layer's activations", size, "measured here", "T x what a layer saves", upper=upper)


def layer_finding_norms(workload: Workload, shape: ModelShape) -> Term:
    """A layer that is computed again while DoRA's norms are found: in its forward pass, which makes no gradients.

    Under autocast the narrowed operands of the norm take what they leave (counted under fake tensors, 2026-11-30).
    """
    whole = layer(workload, shape)
    gradients = workload.tokens * layer_of(workload, shape).transient if workload.compute_bytes == 4 else 0.0
    return whole._replace(expected_bytes=whole.expected_bytes - round(gradients))


def held_logits(workload: Workload, shape: ModelShape) -> Term:
    """The model's output, if the program holds it until the backward pass has ended."""
    count = workload.scored_tokens * shape.vocab_size if workload.logits == "held" else 0
    return term("logits held", count * workload.compute_bytes, "measured here", "T V b")


def logit_width(workload: Workload) -> float:
    """Returns the bytes a logit of a loss over whole logits."""
    held = workload.compute_bytes if workload.logits == "held" else 0
    return LOGIT_BYTES[workload.logits] + held


def logit_bytes(workload: Workload, shape: ModelShape) -> float:
    """Returns the bytes of logits at once."""
    rows, vocab = workload.scored_tokens, shape.vocab_size
    if workload.logits == "liger":
        each = _LIGER_ROW_BYTES * workload.completion_tokens + 2 * workload.compute_bytes * shape.hidden_size
        return vocab * each
    if workload.logits != "chunked":
        return rows * vocab * logit_width(workload)
    if workload.stack == "trl":
        # The scored rows are copied, and their gradient is made in float32 before it is narrowed, if it is.
        b = workload.compute_bytes
        copies = 4 + b + (b if b < 4 else 0)
        return workload.compute_bytes * min(rows, _TILE_ROWS) * _TILE_WIDTH + copies * rows * shape.hidden_size
    tiles = 4 * min(rows, MOST_ROWS) * (_SPLIT_COLUMNS + shape.hidden_size)
    return tiles if workload.tiles_logits else max(4 * vocab * chunk_rows(rows, shape), tiles)


def spare_chunk(workload: Workload, shape: ModelShape) -> Term:
    """What Unsloth's chunk of logits takes beyond its least rows: it shrinks to half of the card's free memory."""
    rows, vocab = workload.scored_tokens, shape.vocab_size
    least = min(_CHUNK_LEAST, rows)
    shrinks = workload.logits == "chunked" and workload.stack == "unsloth"
    size = logit_bytes(workload, shape) - 4 * vocab * least if shrinks else 0
    upper = _FALLBACK_BYTES * vocab * (fallback_rows(rows, vocab) - least) if shrinks else 0
    formula = "4 V (its rows - 2), or tiles of T (16384 + H) 4"
    return term("chunk of logits", size, "read from source", formula, upper=_LOSS_UPPER * upper, elastic=True)


def chunk_rows(rows: int, shape: ModelShape) -> int:
    """Returns the rows of one chunk in Unsloth's fused log-probs, a power of two; from 4096 rows on tiles are used."""
    rows = min(rows, MOST_ROWS)
    least = min(max(_power_of_two(_CHUNK_LOGITS / shape.vocab_size), _LEAST_ROWS), MOST_ROWS)
    wanted = max(_power_of_two(rows * shape.hidden_size / shape.vocab_size), least)
    return min(wanted, _CHUNK_BYTES // (4 * shape.vocab_size), rows)


def fallback_rows(rows: int, vocab_size: int) -> int:
    """Returns the rows of one chunk without the fused kernels: an eighth of all, from 512 up to 2 GiB."""
    most = _CHUNK_BYTES // (_FALLBACK_BYTES * vocab_size)
    return min(max(min(most, max(_LEAST_ROWS, ceil(rows / 8))), _CHUNK_LEAST), rows)


def _power_of_two(number: float) -> int:
    """Returns the power of two at or below a number."""
    return 1 << max(int(number).bit_length() - 1, 0)


def _with_logits(name: str, workload: Workload, shape: ModelShape, hidden: float, head: float = 0.0) -> Term:
    """Adds logits to the hidden states. A head's gradient is there with chunks, but after most of whole logits.

    Autocast narrows a float32 head and keeps the copy until whole logits' gradients have passed it.
    """
    is_whole = workload.logits not in _IN_CHUNKS
    rule = f"T V x {logit_width(workload):g}" if is_whole else "one chunk of logits"
    grade: Grade = "measured here" if workload.logits in _COUNTED else "read from source"
    logits = logit_bytes(workload, shape)
    narrow = workload.compute_bytes * workload.scored_tokens * shape.vocab_size
    copy = workload.compute_bytes * shape.vocab_size * shape.hidden_size if _narrows_head(workload) else 0
    size = hidden + copy + (max(logits, narrow + head) if is_whole else logits + head)
    size -= spare_chunk(workload, shape).expected_bytes
    return term(name, size, grade, f"final hidden states + {rule}", upper=_LOSS_UPPER * size)


def _narrows_head(workload: Workload) -> bool:
    width = 4 if workload.upcast_remainder else weight_bytes(workload)
    return workload.stack == "trl" and workload.logits not in _IN_CHUNKS and width > workload.compute_bytes


def narrow_copies(workload: Workload) -> int:
    """Whole weights in the compute type, kept for the backward pass with what their layer saves."""
    is_narrowed = workload.compute_bytes < workload.whole_bytes
    return round(workload.compute_bytes * workload.whole_params * workload.gradient_share) if is_narrowed else 0


def _softmax(workload: Workload, shape: ModelShape) -> float:
    """Eager attention's own backward pass, after the MLP's: the norm's input, queries, keys and values, and in float32
    softmax's result, the gradient that comes in, CUDA's product of both and the gradient that goes out
    (pytorch aten/src/ATen/native/cuda/SoftMax.cu, `softmax_backward_cuda_out`). From float16 that is in float16: 14."""
    if workload.attention != "eager":
        return 0.0
    squares = workload.micro_batch * workload.row_tokens**2 * shape.num_heads
    each = 8 * shape.hidden_size + 4 * workload.compute_bytes * shape.query_size
    return workload.tokens * each + 16.0 * squares


def _keys(workload: Workload, shape: ModelShape) -> int:
    return shape.key_size if workload.attention in FUSED else shape.query_size


def _copied_keys(workload: Workload, shape: ModelShape) -> int:
    """What one layer keeps in addition if the memory-efficient kernel has no grouped queries, before torch 2.14."""
    more = shape.query_size - shape.key_size if workload.attention == "efficient" else 0
    return workload.tokens * 2 * more * workload.compute_bytes


def _dropped(workload: Workload, shape: ModelShape) -> float:
    """Dropout keeps its own copy of each adapted layer's input."""
    if not workload.lora_dropout or workload.method == "full":
        return 0.0
    return workload.compute_bytes * sum(size[0] for size in terms.adapted_sizes(workload, shape))


def _scores(workload: Workload, shape: ModelShape) -> float:
    """Attention's squares in one layer. `sdpa`: the mask in numbers, made by each layer (measured here); `eager`: what
    softmax keeps of its own result, in float32, and the copy that the values are mixed with."""
    square = workload.micro_batch * workload.row_tokens**2
    if workload.attention == "sdpa":
        return square * workload.compute_bytes
    copy = workload.compute_bytes if workload.compute_bytes < 4 else 0
    return square * shape.num_heads * (4.0 + copy) if workload.attention == "eager" else 0.0
