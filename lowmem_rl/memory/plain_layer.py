"""What one decoder layer of plain transformers holds, by which of its linear layers carry an adapter.

Counted under fake tensors on Llama, Qwen2, Qwen3 and Gemma layers of 1B and 7B shapes (transformers 5.17, PEFT 0.21,
bitsandbytes 0.50), and read from the lines that are named here.
"""

from dataclasses import dataclass

from lowmem_rl.memory.terms import trained_bytes, weight_bytes
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

_READS = {
    "q_proj": "attention norm",
    "k_proj": "attention norm",
    "v_proj": "attention norm",
    "o_proj": "attention",
    "gate_proj": "MLP norm",
    "up_proj": "MLP norm",
    "down_proj": "product",
}
"""What each linear layer reads. Attention keeps its own output, so nobody else has to."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Bytes a token that one decoder layer takes in training."""

    saved: float
    transient: float
    formula: str

    @property
    def peak(self) -> float:
        return self.saved + self.transient


def plain_layer(workload: Workload, shape: ModelShape, key_size: int) -> Layer:
    """Returns the layer as PEFT wraps it; `key_size` is the width of the keys that attention keeps.

    Norms keep a float32 copy of their input and its normed form (4H each), the MLP the gate, its activation and the
    other factor. The worst moment is the product's backward pass: two residual gradients, and three of I, less the
    product if it was kept and is gone by then.
    """
    hidden, mlp, b, wide = shape.hidden_size, shape.intermediate_size, workload.compute_bytes, mlp_bytes(workload)
    norms = 8 * hidden + (4 * (shape.query_size + shape.key_size) if shape.qk_norm else 0)
    attention = b * (2 * shape.query_size + 2 * key_size)
    product = b * mlp if _keeps_product(workload) else 0
    saved = norms + attention + 3 * wide * mlp + _kept_inputs(workload, shape)
    transient = 4 * hidden + 3 * wide * mlp - product
    return Layer(saved, max(transient, _copying(workload, shape)), "norms + b (2q + 2k + 3I) + inputs + 4H + 3bI")


def residual_bytes(workload: Workload) -> int:
    """Width of the residual stream: the embeddings', float32 after `prepare_model_for_kbit_training`."""
    wide = 4 if workload.upcast_remainder else max(weight_bytes(workload), workload.compute_bytes)
    return workload.residual_bytes or wide


def mlp_bytes(workload: Workload) -> int:
    """Width of the MLP's tensors: a 4-bit layer returns the type that it was given (bitsandbytes nn/modules.py), so a
    float32 residual stream stays float32 up to the product."""
    is_wide = workload.method == "qlora" and workload.layer == "plain"
    return max(workload.compute_bytes, residual_bytes(workload)) if is_wide else workload.compute_bytes


def copies_inputs(workload: Workload) -> bool:
    """PEFT turns an adapter's input into the adapter's type and autocast narrows it again, for each adapter separately
    (peft tuners/lora/layer.py); on 4-bit layers under autocast PEFT leaves it (tuners/lora/bnb.py)."""
    return workload.method == "lora" and trained_bytes(workload) > workload.compute_bytes


def _keeps_product(workload: Workload) -> bool:
    if workload.method == "full" or workload.whole_params:
        return True
    return "down_proj" in workload.lora_targets or workload.keeps_4bit_inputs


def _kept_inputs(workload: Workload, shape: ModelShape) -> float:
    """What linear layers that learn keep of their inputs; norms that learn keep theirs, normalised."""
    hidden, product, b = shape.hidden_size, workload.compute_bytes * shape.intermediate_size, workload.compute_bytes
    if workload.whole_params:  # each norm's normalised input, and its output, which the matrices after it read
        return 4 * b * hidden + product
    if workload.method == "full":  # autocast narrows the input of each of the five layers after a norm separately
        copies = 5 if weight_bytes(workload) > b else 2
        return (2 * weight_bytes(workload) + copies * b) * hidden + product
    return _adapter_inputs(workload, shape)


def _adapter_inputs(workload: Workload, shape: ModelShape) -> float:
    """Dropout keeps its result and a mask of one byte, for each adapter. Other inputs are kept once however many
    read them, or each reader's copy, if one had to be made."""
    sizes = {name: size[0] for name, size in shape.linear_sizes.items()}
    adapted = [name for name in sizes if name in workload.lora_targets]
    dropped = (workload.compute_bytes + 1) * sum(sizes[name] for name in adapted) if workload.lora_dropout else 0
    readers = [*([] if dropped else adapted), *(sizes if workload.keeps_4bit_inputs else ())]
    if copies_inputs(workload):
        return dropped + workload.compute_bytes * sum(sizes[name] for name in readers)
    others = [name for name in readers if _READS[name] != "attention"]
    if mlp_bytes(workload) > workload.compute_bytes:  # narrowed for each of them; attention's own output is narrow
        return dropped + workload.compute_bytes * sum(sizes[name] for name in others)
    once = {_READS[name]: sizes[name] for name in others}
    return dropped + workload.compute_bytes * sum(once.values())


def _copying(workload: Workload, shape: ModelShape) -> float:
    """The forward pass of the layer after the product, recomputed: the product and its float32 form next to the copy
    that is kept; dropout's float32 result too."""
    if not copies_inputs(workload) or "down_proj" not in workload.lora_targets:
        return 0.0
    wide = 8 if workload.lora_dropout else 4
    return workload.compute_bytes * (6 * shape.hidden_size + shape.intermediate_size) + wide * shape.intermediate_size
