"""The operations of a decoder layer and of the loss, in order, for the allocator.

Layers as in transformers 5.17 with PEFT's adapters (0.21), and in Unsloth 2026.10.9 (kernels/fast_lora.py). What they
take at most is what `activations` counts; here it is when.
"""

from collections.abc import Iterator

from lowmem_rl.memory.activations import FUSED
from lowmem_rl.memory.operations import Operation, Operations
from lowmem_rl.memory.terms import trained_bytes, weight_bytes
from lowmem_rl.memory.workload import Workload

_WIDE_BYTES = 4


def residual_bytes(workload: Workload) -> int:
    """Returns the width of the residual stream, which is the embeddings'."""
    wide = _WIDE_BYTES if workload.upcast_remainder else max(weight_bytes(workload), workload.compute_bytes)
    return workload.residual_bytes or wide


def layer_operations(workload: Workload) -> Operations:
    """Returns what a decoder layer makes of its input `x`."""
    return _unsloth_layer(workload) if workload.layer == "unsloth" else _plain_layer(workload)


def loss_operations(workload: Workload) -> Operations:
    """Returns the last norm, the head and the loss over `x`, by how logits are computed."""
    return (*_norm("h", "x", workload), *_LOSSES.get(workload.logits, _LOSSES["full"]))


_LOGITS = Operation("logits", "narrow logits", ("h",), ("h", "logits"))
"""The model's output, which its caller holds until the backward pass."""
_WIDE = Operation("wide", "logits", ("logits",))
_LOG_SOFTMAX: Operations = (
    _WIDE,
    Operation("log-softmax", "logits", ("wide",), ("log-softmax",)),
    Operation("loss", "scalar", ("log-softmax",)),
)


def _picked(of: str) -> Operations:
    """TRL's log-probs of the tokens that were sampled (trl 1.12 trainer/utils.py, selective_log_softmax).

    In the order of PyTorch's autograd: each row's gradient of log-sum-exp, which are then put together.
    """
    return (
        Operation("picked", "scalar", (of,), (of,)),
        Operation("log-sum-exp", "scalar", (of,), (of,), backward_scratch=("logits", "logits")),
        Operation("loss", "scalar", ("picked", "log-sum-exp")),
    )


_LIGER_ROW = ("row logits", "row softmax", "row gradient")
_LOSSES: dict[str, Operations] = {
    "chunked": (Operation("loss", "scalar", ("h",), ("h",), ("chunk",)),),
    "in-place": (_LOGITS, Operation("loss", "scalar", ("logits",), ("logits",), ("logits",), in_place=True)),
    "kept": (_LOGITS, _WIDE, Operation("loss", "scalar", ("wide",), ("wide",), in_place=True)),
    "fused": (_LOGITS, _WIDE, Operation("loss", "scalar", ("wide",), ("wide",), in_place=True)),
    "full": (Operation("logits", "narrow logits", ("h",), ("h",)), *_LOG_SOFTMAX),
    "held": (_LOGITS, *_LOG_SOFTMAX),
    "selective": (
        Operation("logits", "narrow logits", ("h",), ("h",)),
        # CopySlices, autograd's node of the division in place: the gradient's copy, the view's clone, the quotient.
        Operation("wide", "logits", ("logits",), backward_scratch=("logits", "logits", "logits")),
        *_picked("wide"),
    ),
    "divided": (
        Operation("logits", "narrow logits", ("h",), ("h",)),
        _WIDE,
        Operation("scaled", "logits", ("wide",)),
        *_picked("scaled"),
    ),
    # liger_kernel chunked_loss/fused_linear_ppo.py: going forward, row by row, each makes both gradients.
    "liger": (
        Operation("hidden gradient", "hidden"),
        Operation("head gradient", "head"),
        *(Operation(name, "row logits") for name in _LIGER_ROW),
        Operation("row's head gradient", "head"),
        Operation(
            "loss",
            "scalar",
            ("h", "hidden gradient", "head gradient", *_LIGER_ROW, "row's head gradient"),
            ("hidden gradient", "head gradient"),
        ),
    ),
    "shifted": (
        _LOGITS,
        _WIDE,
        Operation("shifted", "logits", ("wide",)),
        Operation("log-softmax", "logits", ("shifted",), ("log-softmax",)),
        Operation("loss", "scalar", ("log-softmax",)),
    ),
}
"""By `Logits`; another kind counts as whole logits in plain PyTorch."""


def _unsloth_layer(workload: Workload) -> Operations:
    """Kernels that write the MLP's gradients over its inputs, and queries and keys in their own place."""
    joins_rows = workload.loss == "grpo" and workload.attention in FUSED and workload.micro_batch > 1
    mixed = Operation("mixed", "query", ("q", "k", "v"), ("q", "k", "v", "mixed"))
    joined = (Operation("joined", "query", ("mixed",), ("joined",)),) if joins_rows else ()
    last = "joined" if joins_rows else "mixed"
    return (
        Operation("norm1", "hidden", ("x",)),
        Operation("q", "query", ("norm1",), ("norm1",)),
        Operation("k", "key", ("norm1",), ("norm1",)),
        Operation("v", "key", ("norm1",), ("norm1",)),
        mixed,
        *joined,
        Operation("attended", "hidden", (last,), (last,)),
        Operation("middle", "residual", ("x", "attended")),
        Operation("norm2", "hidden", ("middle",), ("middle",)),
        Operation("gate", "mlp", ("norm2",), ("norm2",)),
        Operation("up", "mlp", ("norm2",), ("norm2",)),
        Operation("product", "mlp", ("gate", "up"), ("gate", "up"), in_place=True),
        Operation("down", "hidden", ("product",)),
        Operation("y", "residual", ("middle", "down")),
    )


def _plain_layer(workload: Workload) -> Operations:
    """Transformers' layer, or one with fused norms and rotary embeddings, with PEFT's adapters around its matrices."""
    fused = workload.layer == "fused"
    return (
        *_norm("norm1", "x", workload),
        *_linear("q", "query", "norm1", "hidden", "q_proj", workload),
        *_linear("k", "key", "norm1", "hidden", "k_proj", workload),
        *_linear("v", "key", "norm1", "hidden", "v_proj", workload),
        *_turned("q", "query", fused),
        *_turned("k", "key", fused),
        *_attention(workload),
        *_linear("attended", "hidden", "mixed", "query", "o_proj", workload),
        Operation("middle", "residual", ("x", "attended")),
        *_norm("norm2", "middle", workload),
        *_linear("gate", "mlp", "norm2", "hidden", "gate_proj", workload),
        *_linear("up", "mlp", "norm2", "hidden", "up_proj", workload),
        Operation("active", "mlp", ("gate",), ("gate",)),
        Operation("product", "mlp", ("active", "up"), ("active", "up")),
        *_linear("down", "hidden", "product", "mlp", "down_proj", workload),
        Operation("y", "residual", ("middle", "down")),
    )


def _attention(workload: Workload) -> Iterator[Operation]:
    """A kernel, with what it copies and masks; eager attention holds all scores."""
    if workload.attention in FUSED:
        turned = ("q_turned", "k_turned", "v")
        yield Operation("mixed", "query", turned, (*turned, "mixed"))
        return
    yield Operation("k_copied", "query", ("k_turned",))
    yield Operation("v_copied", "query", ("v",))
    if workload.attention == "eager":
        yield from _eager(workload)
        return
    yield Operation("mask", "mask")
    copied = ("q_turned", "k_copied", "v_copied", "mask")
    yield Operation("mixed", "query", copied, (*copied, "mixed"))


def _eager(workload: Workload) -> Iterator[Operation]:
    """Scores, scaled and masked, and softmax in float32, whose backward pass on CUDA multiplies its result and the
    gradient into a tensor of their own; in 16 bit a copy is mixed (transformers' `eager_attention_forward`)."""
    yield Operation("scores", "square", ("q_turned", "k_copied"), ("q_turned", "k_copied"))
    yield Operation("scaled", "square", ("scores",))
    yield Operation("masked", "square", ("scaled",))
    weights = "softmax"
    yield Operation(weights, "wide square", ("masked",), (weights,), backward_scratch=("wide square",))
    if workload.compute_bytes < _WIDE_BYTES:
        yield Operation("narrow softmax", "square", (weights,))
        weights = "narrow softmax"
    yield Operation("mixed", "query", (weights, "v_copied"), (weights, "v_copied"))


def _norm(result: str, of: str, workload: Workload) -> Iterator[Operation]:
    """In float32, which its backward pass reads, and back; a residual that is in float32 needs no copy."""
    if workload.layer != "plain":
        yield Operation(result, "hidden", (of,), (of,) if of != "x" else ())
        return
    wide, scaled, half = f"{result} wide", f"{result} scaled", f"{result} half"
    if residual_bytes(workload) < _WIDE_BYTES:
        yield Operation(wide, "wide hidden", (of,), (wide,), ("wide hidden",))
    else:
        wide = of
    yield Operation(scaled, "wide hidden", (wide,), (wide,) if wide != "x" else ())
    yield Operation(half, "hidden", (scaled,))
    yield Operation(result, "hidden", (half,))


def _linear(result: str, size: str, of: str, of_size: str, name: str, workload: Workload) -> Iterator[Operation]:
    """A frozen matrix, dequantised while it is used if it is in 4 bit, and its adapter, whose product is added."""
    scratch = (name,) if workload.method == "qlora" else ()
    if name not in workload.lora_targets or workload.method == "full":
        yield Operation(result, size, (of,), (of,) if workload.method == "full" else (), scratch)
        return
    is_wide = trained_bytes(workload) > workload.compute_bytes
    copy = of
    if is_wide:  # float32 for the adapter, then narrowed by autocast, and kept
        yield Operation(f"{result} in", of_size, (of,), (), (f"wide {of_size}",))
        copy = f"{result} in"
    yield Operation(f"{result} base", size, (of,), (), scratch)
    yield Operation(f"{result} adapter", size, (copy,), (copy,))
    yield Operation(f"{result} scaled", size, (f"{result} adapter",))
    yield Operation(result, size, (f"{result} base", f"{result} scaled"))


def _turned(of: str, size: str, fused: bool) -> Iterator[Operation]:
    """Rotary embedding: times the cosine, the halves exchanged times the sine, and the sum."""
    if fused:
        yield Operation(f"{of}_turned", size, (of,))
        return
    yield Operation(f"{of} cosine", size, (of,))
    yield Operation(f"{of} halves", size, (of,))
    yield Operation(f"{of} sine", size, (f"{of} halves",))
    yield Operation(f"{of}_turned", size, (f"{of} cosine", f"{of} sine"))
