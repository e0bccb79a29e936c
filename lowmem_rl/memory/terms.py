"""What stays in memory through a step: weights, adapter, gradients, optimizer states. One function a term.

Letters in formulas: L layers, H hidden, I width of the MLP, q and k widths of queries and keys, V vocabulary,
d width of a head, r rank, T tokens of one forward, b bytes of a number in the compute type.
"""

from collections.abc import Iterable
from math import ceil
from typing import Literal, NamedTuple

from lowmem_rl.memory.adapter_tensors import numbers_in, sizes_of
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

Grade = Literal["measured here", "measured elsewhere", "read from source", "assumed"]


class Term(NamedTuple):
    """One thing that takes memory in a phase, and how well its size is known.

    A tuple, because a plan makes thousands: a frozen dataclass takes four times as long.
    """

    name: str
    expected_bytes: int
    upper_bytes: int
    grade: Grade
    formula: str
    elastic: bool = False
    """A library fills what is free with it, or gives it back under pressure: not required."""


def term(
    name: str, expected: float, grade: Grade, formula: str, *, upper: float | None = None, elastic: bool = False
) -> Term:
    """Returns a term in whole bytes; its upper value is the expected one if none is given."""
    least = ceil(expected)
    return Term(name, least, least if upper is None else max(ceil(upper), least), grade, formula, elastic)


Terms = tuple[Term, ...]


def expected_sum(parts: Iterable[Term]) -> int:
    """Returns the bytes that all of them are expected to take."""
    return sum([one.expected_bytes for one in parts])


def upper_sum(parts: Iterable[Term]) -> int:
    """Returns the bytes of all of them at their worst."""
    return sum([one.upper_bytes for one in parts])


BLOCK, _OUTER_BLOCK = 64, 256
"""Weights that share a constant of NF4, and constants that share one of the second quantisation (bitsandbytes'
defaults; QLoRA, arXiv 2305.14314)."""
_DYNAMIC_EXCESS = {
    (3584, 18_944, 152_064): 0.359,
    (5120, 13_824, 152_064): 0.435,
    (2048, 11_008, 151_936): 0.16,
    (4096, 14_336, 128_256): 0.05,
}
"""What Unsloth's dynamic upload adds to a plain one, by hidden size, MLP and vocabulary: the size of its files on the
hub over the formula's (Qwen2.5 7B 7.54 GB, 14B 14.25 GB, 3B; Llama 3.1 8B), read in November 2026. The number of
layers is not in the key: a deeper model of the same widths must never need less."""
_UNKNOWN_EXCESS = (0.25, 0.45)
"""For other models: expected and upper; the uploads that were read are between 0.05 and 0.44."""


def nf4_bytes(double_quantisation: bool = True) -> float:
    """Returns the bytes of a weight in NF4 with its constants: 4.127 bits if these are quantised again."""
    return 0.5 + (1 / BLOCK + 4 / (BLOCK * _OUTER_BLOCK) if double_quantisation else 4 / BLOCK)


def kv_bytes_per_token(shape: ModelShape, compute_bytes: int) -> int:
    """Returns the bytes of the keys and values of one token in all layers: 2 L k b."""
    return 2 * shape.num_layers * shape.key_size * compute_bytes


def rollout_cache_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns the bytes of the cache of all rows sampled together, at their full length."""
    return workload.rollout_rows * workload.row_tokens * kv_bytes_per_token(shape, workload.compute_bytes)


def linear_weights(workload: Workload, shape: ModelShape) -> Term:
    """The matrices of all layers, quantised or in the compute type."""
    count = shape.linear_params
    if workload.method != "qlora":
        return term("weights", count * weight_bytes(workload), "read from source", "L (2Hq + 2Hk + 3HI) b")
    if (held := shape.linear_file_bytes) is not None:
        return term("4-bit weights", held, "measured here", "the files' bytes - what is not quantised in them")
    constants = "1 / 64 + 4 / (64 x 256)" if workload.double_quantisation else "4 / 64"
    plain = count * nf4_bytes(workload.double_quantisation)
    low, high = 0.0, 0.0
    if workload.dynamic_checkpoint or shape.quantised == "dynamic":  # asked for, or in the named files already
        known = _DYNAMIC_EXCESS.get((shape.hidden_size, shape.intermediate_size, shape.vocab_size))
        low, high = _UNKNOWN_EXCESS if known is None else (known, known)
    whole = plain + 2 * shape.other_params  # the files' own bytes: 16 bit, whatever becomes of it later
    grade: Grade = "assumed" if low != high else "measured elsewhere" if low else "read from source"
    formula = f"L (2Hq + 2Hk + 3HI) (1/2 + {constants})" + (" + layers left in 16 bit" if low else "")
    return term("4-bit weights", plain + low * whole, grade, formula, upper=plain + high * whole)


def uncounted_weights(workload: Workload, shape: ModelShape) -> Term:
    """What the files hold beyond the formulas: quantised if it is more linear layers, else as it is."""
    width = weight_bytes(workload)
    each = nf4_bytes(workload.double_quantisation) if workload.method == "qlora" else width
    count = shape.uncounted_params
    return term("weights of no formula", count * each, "assumed", "the files' weights - ours", upper=count * width)


def other_weights(workload: Workload, shape: ModelShape) -> Term:
    """What is never quantised: embeddings, an untied head, norms, biases."""
    return term(
        "embeddings, head, norms",
        _remainder_bytes(workload, shape),
        "read from source",
        "(V H [x 2 untied] + (2L + 1) H + L (q + 2k) [biases] + 2 L d [norms of heads]) x "
        + ("4" if workload.upcast_remainder else "b"),
    )


def trained_params(workload: Workload, shape: ModelShape) -> int:
    """Weights that learn: r (in + out) of each adapted layer, or all of them."""
    share = trained_layers(workload, shape)
    if workload.method == "full":
        one_layer = shape.layer_params + shape.layer_other_params
        return shape.num_params if share == shape.num_layers else share * one_layer
    if workload.adapter_tensors is not None:
        return numbers_in(workload.adapter_tensors)
    sizes = adapted_sizes(workload, shape)
    magnitudes = sum(outputs for _, outputs in sizes) if workload.use_dora else 0
    return share * (workload.lora_rank * sum(map(sum, sizes)) + magnitudes)


def adapted_sizes(workload: Workload, shape: ModelShape) -> list[tuple[int, int]]:
    """Returns inputs and outputs of the linear layers that get an adapter. Raises `ConfigError` for any other name."""
    return list(sizes_of(workload.lora_targets, shape).values())


def trained_layers(workload: Workload, shape: ModelShape) -> int:
    """Layers with weights that learn."""
    return shape.num_layers if workload.trained_layers is None else min(workload.trained_layers, shape.num_layers)


def backward_layers(workload: Workload, shape: ModelShape) -> int:
    """Layers that the backward pass goes through."""
    found = workload.backward_layers
    return trained_layers(workload, shape) if found is None else min(found, shape.num_layers)


def trained_bytes(workload: Workload) -> int:
    """Width of a trained weight: Unsloth and PEFT hold adapters in float32, TRL turns those on 4-bit bases to 16 bit
    (trl 1.15 grpo_trainer.py:509); full training has the weights' own width."""
    if workload.method == "full":
        return weight_bytes(workload)
    is_trl_qlora = (workload.stack, workload.method, workload.loss) == ("trl", "qlora", "grpo")
    return workload.adapter_bytes or (workload.compute_bytes if is_trl_qlora else 4)


def weight_bytes(workload: Workload) -> int:
    """Width of a weight that is not quantised."""
    return workload.weight_bytes or workload.compute_bytes


def adapter(workload: Workload, shape: ModelShape) -> Term:
    """The adapter's weights; none in full training: the weights themselves learn."""
    count = 0 if workload.method == "full" else trained_params(workload, shape)
    size = count * trained_bytes(workload) + 4 * workload.frozen_adapter
    return term("adapter", size, "read from source", "L r sum(in + out) x 4 (2: TRL, QLoRA)")


def trains_whole(workload: Workload) -> bool:
    """Returns whether matrices themselves learn, some or all: their gradients come as activations go."""
    return workload.method == "full" or workload.whole_params > 0


def whole_weights(workload: Workload) -> Term:
    """Weights that learn whole, next to their frozen originals; one that has not learned yet has no copy."""
    share = workload.gradient_share + (0.0 if workload.parks_masters else workload.resting_share)
    size = _whole_bytes(workload) * share
    return term("whole weights", size, "read from source", "numbers that learn or have learned x 4 (2: bfloat16)")


def start_copy(workload: Workload, shape: ModelShape) -> Term:
    """The frozen copy of what learns that is the KL reference of a run which starts from an adapter."""
    size = learned_bytes(workload, shape) if workload.keeps_start else 0
    return term("start, the KL reference", size, "read from source", "numbers that learn x 4")


def _whole_bytes(workload: Workload) -> int:
    return workload.whole_params * workload.whole_bytes


def learned_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns the bytes of all weights that ever learn in a run."""
    return trained_params(workload, shape) * trained_bytes(workload) + _whole_bytes(workload)


def gradients(workload: Workload, shape: ModelShape) -> Term:
    """One number per trained weight, from the first backward pass of a step to its end."""
    size = learned_bytes(workload, shape) * workload.gradient_share
    return term("gradients", size, "read from source", "trained weights x their width")


def late_gradients(workload: Workload, shape: ModelShape) -> int:
    """Returns the bytes of a layer's gradients that come after its last matrix's; 0 unless whole layers learn."""
    one_layer, layers = shape.layer_params + shape.layer_other_params, trained_layers(workload, shape)
    is_all = workload.method == "full" or workload.whole_params == layers * one_layer
    if not is_all or workload.gradient_share * layers < 1:
        return 0
    return (one_layer - shape.hidden_size * shape.intermediate_size) * _gradient_bytes(workload)


def embedding_gradient(workload: Workload, shape: ModelShape) -> int:
    """Returns the bytes of the embeddings' gradient, and of the head's: 0 unless all weights learn."""
    learns = workload.method == "full" and trained_layers(workload, shape) == shape.num_layers
    return shape.vocab_size * shape.hidden_size * weight_bytes(workload) if learns else 0


def _gradient_bytes(workload: Workload) -> int:
    return workload.whole_bytes if workload.whole_params else trained_bytes(workload)


def gradient_sums(workload: Workload, shape: ModelShape) -> Term:
    """Gradients of an adapter, added up on the card; those of whole weights are in host RAM (`summed_host_bytes`)."""
    is_there = workload.sums_gradients and not workload.whole_params
    size = trained_params(workload, shape) * trained_bytes(workload) if is_there else 0
    return term("gradient sums", size, "read from source", "adapter's weights x 4 (trainable.schedule=autofreeze)")


def summed_host_bytes(workload: Workload) -> int:
    """Returns the host memory of summed gradients of whole weights, in bfloat16."""
    return 2 * workload.whole_params if workload.sums_gradients else 0


def compared_copy(workload: Workload, shape: ModelShape) -> Term:
    """What of an adapter learns, copied for the last step of a period; whole weights are copied to host RAM."""
    is_there = workload.compares_weights and not workload.whole_params
    size = learned_bytes(workload, shape) * workload.gradient_share if is_there else 0
    return term(
        "copy to compare", size, "read from source", "adapter's weights that learn (trainable.schedule=slimfit)"
    )


def compared_host_bytes(workload: Workload) -> int:
    """Returns the host memory of whole weights that are copied for such a step."""
    return int(_whole_bytes(workload) * workload.gradient_share) if workload.compares_weights else 0


STATE_BYTES = {
    "adamw_8bit": 2 * (1 + 4 / 256),
    "paged_adamw_8bit": 2 * (1 + 4 / 256),
    "lion_8bit": 1 + 4 / 256,
    "paged_lion_8bit": 1 + 4 / 256,
    "sgd": 0.0,
    "adafactor": 0.02,
}
"""Bytes of state per trained weight: two moments of 8 bits, each with a float32 constant for 256 numbers
(bitsandbytes' optimizers). Tensors below 4096 numbers stay in float32 there; adapters have none that matter."""
_PAGED_NUMBERS = 100_000
"""Size of a weight from which on bitsandbytes pages its states (optim/optimizer.py, get_state_buffer)."""


def _paged_params(workload: Workload, shape: ModelShape) -> int:
    """Trained weights whose states are paged; in full training practically all: norms and biases are small."""
    if not workload.optimizer.startswith("paged"):
        return 0
    if workload.method == "full" or workload.whole_params:
        return trained_params(workload, shape) + workload.whole_params
    tensors, layers = workload.adapter_tensors, trained_layers(workload, shape)
    if tensors is None:
        sides = [side for sides in adapted_sizes(workload, shape) for side in sides]
        tensors = tuple((workload.lora_rank * side, layers) for side in sides)
    return numbers_in(tuple(tensor for tensor in tensors if tensor[0] >= _PAGED_NUMBERS))


def optimizer_states(workload: Workload, shape: ModelShape) -> Term:
    """They appear at the first optimizer step and stay; paged ones are a term of their own."""
    size, each = unpaged_state_bytes(workload, shape) * workload.state_share, _state_bytes(workload)
    return term("optimizer states", size, "read from source", f"trained weights x {each:.4g}")


def unpaged_state_bytes(workload: Workload, shape: ModelShape) -> float:
    """Returns the bytes of the states of all that ever learns, without those that are paged."""
    count = trained_params(workload, shape) + workload.whole_params - _paged_params(workload, shape)
    return count * _state_bytes(workload)


def paged_states(workload: Workload, shape: ModelShape) -> Term:
    """States in memory that CUDA moves to the host under pressure."""
    each = _state_bytes(workload)
    size = _paged_params(workload, shape) * each * workload.state_share
    formula = f"trained weights in tensors of {_PAGED_NUMBERS:,} numbers"
    return term("paged optimizer states", size, "read from source", f"{formula} and more x {each:.4g}", elastic=True)


def _state_bytes(workload: Workload) -> float:
    """AdamW has two moments in the weight's width."""
    return STATE_BYTES.get(workload.optimizer, 2.0 * _gradient_bytes(workload))


def optimizer_scratch(workload: Workload, shape: ModelShape) -> Term:
    """PyTorch's multi-tensor AdamW takes the root of all second moments at once (torch/optim/adam.py)."""
    size = gradients(workload, shape).expected_bytes if workload.optimizer == "adamw_torch" else 0
    return term("optimizer scratch", size, "read from source", "trained weights x their width (adamw_torch alone)")


UNDO_BYTES = 256 * 2**20
"""Most bytes of weights that are copied on the card for the length of a step: adapters of usual ranks have less, five
whole layers of a 7B have 4.3 GiB. More is copied to host RAM, and only before a step that allocates."""


def undo_copy(workload: Workload, shape: ModelShape) -> Term:
    """A copy of what learns and of its states while the optimizer steps, to undo a step that fails (`grpo.oom_retry`).

    Paged states are host memory to torch, and so is their copy. Those of small weights are not paged.
    """
    is_ours = workload.loss == "grpo" and workload.stack == "unsloth" and workload.method != "full"
    learning = learned_bytes(workload, shape) * workload.gradient_share
    states = ceil(unpaged_state_bytes(workload, shape) * workload.gradient_share)
    copied = learning + states if learning <= UNDO_BYTES else 0
    formula = "adapter or whole weights + optimizer states on the card"
    return term("copy to undo a step", copied if is_ours else 0, "read from source", formula)


def weight_copies(workload: Workload, shape: ModelShape) -> Term:
    """Unsloth's buffer for the largest 4-bit matrix and its constants, which stays; others allocate that each time
    (`matrix_in_use`)."""
    is_kept = (workload.stack, workload.method) == ("unsloth", "qlora")
    size = _largest_dequantised(workload, shape) if is_kept else 0.0
    return term("dequantisation scratch", size, "read from source", "largest matrix x (b + 4 / 64)")


def autocast_copies(workload: Workload, shape: ModelShape) -> Term:
    """All linear layers' weights in the compute type, if they are wider."""
    size = shape.linear_params * workload.compute_bytes if narrows_weights(workload) else 0
    return term("autocast copies", size, "measured here", "L (2Hq + 2Hk + 3HI) b")


def cached_copies(workload: Workload, shape: ModelShape) -> Term:
    """The same during a forward pass: autocast caches copies of what learns until the forward ends, and makes those of
    frozen weights for each use (pytorch aten/src/ATen/autocast_mode.cpp, `cached_cast`)."""
    copies = autocast_copies(workload, shape)
    return copies if workload.method == "full" else copies._replace(expected_bytes=0, upper_bytes=0)


def narrows_weights(workload: Workload) -> bool:
    """Returns whether autocast turns the linear layers' weights into a narrower type."""
    return workload.method != "qlora" and weight_bytes(workload) > workload.compute_bytes


def matrix_in_use(workload: Workload, shape: ModelShape) -> Term:
    """The largest matrix in the compute type while a layer uses it, not while the loss is computed: dequantised, or
    narrowed by autocast."""
    size = _largest_dequantised(workload, shape) if (workload.stack, workload.method) == ("trl", "qlora") else 0.0
    if narrows_weights(workload) and workload.method != "full":
        size = shape.largest_matrix * workload.compute_bytes
    return term("matrix in use", size, "read from source", "largest matrix x (b [+ 4 / 64])")


def _largest_dequantised(workload: Workload, shape: ModelShape) -> float:
    return shape.largest_matrix * (workload.compute_bytes + 4 / BLOCK)


def rope_tables(workload: Workload, shape: ModelShape) -> Term:
    """Cosines and sines of every layer, if they are not shared: since transformers 4.48 the model has one table."""
    positions = min(workload.rope_positions, shape.max_positions)
    size = shape.num_layers * positions * 2 * shape.head_dim * workload.compute_bytes
    return term("rotary tables", size, "read from source", "L positions 2 d b")


def upcast_blocks(workload: Workload, shape: ModelShape) -> Term:
    """Embeddings and head in 16 bit, after their float32 copies were made: the last is next to its copy, the other's
    block in the pool (peft utils/other.py, `prepare_model_for_kbit_training`; 0.21 empties the pool). Later tensors use
    those blocks if they fit. Unsloth turns all weights that are to learn into float32 (unsloth_zoo training_utils.py).
    """
    whole = (workload.stack, workload.method) == ("unsloth", "full") and weight_bytes(workload) > workload.compute_bytes
    size = 2 * (shape.num_params if whole else shape.other_params if workload.upcast_remainder else 0)
    formula = "(V H [x 2 untied]) x 2, or all weights, if turned into float32"
    return term("16-bit blocks", size, "read from source", formula, elastic=True)


def ppo_extra_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns what PPO would hold in addition to the same run, for comparison.

    A value model of the policy's size with its own adapter, gradients and states, and a reference model if the method
    trains all weights; with an adapter the reference is the same model without it.
    """
    base = linear_weights(workload, shape).expected_bytes + other_weights(workload, shape).expected_bytes
    learning = sum(part(workload, shape).expected_bytes for part in (adapter, gradients, optimizer_states))
    return base + learning + (base if workload.method == "full" else 0)


def _remainder_bytes(workload: Workload, shape: ModelShape) -> int:
    return shape.other_params * (4 if workload.upcast_remainder else weight_bytes(workload))
