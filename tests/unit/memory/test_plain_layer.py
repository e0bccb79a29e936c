"""A plain decoder layer's bytes a token against what was counted under fake tensors, 4096 tokens long."""

from typing import Any

import pytest

from lowmem_rl.memory.plain_layer import plain_layer
from lowmem_rl.memory.workload import LINEAR_LAYERS, Workload
from lowmem_rl.models.shape import ModelShape

WITHIN = 0.008
"""What is left are the rank's own tensors and weights, and the norms' roots."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SHAPE: dict[str, Any] = {
    "key": "",
    "num_layers": 1,
    "vocab_size": 128,
    "tied_embeddings": False,
    "attention_bias": False,
    "max_positions": 8192,
    "source": "",
}
LLAMA = ModelShape(
    architecture="LlamaForCausalLM",
    hidden_size=2048,
    intermediate_size=5504,
    num_heads=16,
    num_kv_heads=16,
    head_dim=128,
    **SHAPE,
)
QWEN3 = ModelShape(
    architecture="Qwen3ForCausalLM",
    hidden_size=4096,
    intermediate_size=12288,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    qk_norm=True,
    **SHAPE,
)


def work(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "loss": "sft",
        "stack": "trl",
        "method": "lora",
        "lora_rank": 16,
        "micro_batch": 1,
        "prompt_tokens": 4096,
        "completion_tokens": 0,
        "group_size": 1,
        "rollout_rows": 1,
        "checkpointing": "plain",
        "optimizer": "adamw_torch",
        "rollout_engine": "generate",
        "standby": False,
        "reference_pass": False,
        "old_logprob_pass": False,
        "dynamic_checkpoint": False,
        "compute_bytes": 2,
        "layer": "plain",
        "expandable_segments": False,
    }
    return Workload(**settings | changes)


NARROW, WIDE_STREAM = {"adapter_bytes": 2}, {"method": "qlora", "residual_bytes": 4}
COUNTED = [
    (LLAMA, ("q_proj", "v_proj"), {}, 74_184),
    (LLAMA, ATTENTION, {}, 82_504),
    (LLAMA, LINEAR_LAYERS, {}, 101_977),
    (LLAMA, ("q_proj", "v_proj"), NARROW, 70_024),
    (LLAMA, ATTENTION, NARROW, 70_088),
    (LLAMA, LINEAR_LAYERS, NARROW, 85_288),
    (LLAMA, ("gate_proj", "up_proj"), NARROW, 70_024),
    (LLAMA, ("q_proj", "v_proj"), {"method": "qlora"}, 70_088),
    (LLAMA, LINEAR_LAYERS, {"method": "qlora"}, 85_593),
    (LLAMA, ("q_proj", "v_proj"), WIDE_STREAM, 107_208),
    (LLAMA, ATTENTION, WIDE_STREAM, 111_432),
    (LLAMA, LINEAR_LAYERS, WIDE_STREAM, 130_905),
    (LLAMA, ("q_proj", "v_proj"), NARROW | {"lora_dropout": 0.05}, 78_216),
    (LLAMA, ATTENTION, {"lora_dropout": 0.05}, 90_696),
    (LLAMA, LINEAR_LAYERS, {"lora_dropout": 0.05}, 119_769),
    (LLAMA, LINEAR_LAYERS, WIDE_STREAM | {"lora_dropout": 0.05}, 152_793),
    (QWEN3, ("q_proj", "v_proj"), {}, 164_304),
    (QWEN3, LINEAR_LAYERS, NARROW, 188_936),
]


@pytest.mark.parametrize(("shape", "targets", "changes", "counted"), COUNTED)
def test_a_layer_keeps_what_was_counted(shape: ModelShape, targets: tuple, changes: dict, counted: int) -> None:
    one = plain_layer(work(lora_targets=targets, **changes), shape, shape.key_size)
    assert one.saved == pytest.approx(counted, rel=WITHIN)


@pytest.mark.parametrize(
    ("targets", "changes", "counted"),
    [
        (("q_proj", "v_proj"), {}, 41_216),
        (ATTENTION, NARROW, 41_216),
        (LINEAR_LAYERS, NARROW, 30_248),
        (LINEAR_LAYERS, {}, 57_600),  # the last linear layer's float32 input
        (LINEAR_LAYERS, {"lora_dropout": 0.05}, 79_600),
        (("q_proj", "v_proj"), WIDE_STREAM, 74_240),
        (LINEAR_LAYERS, WIDE_STREAM, 63_259),
    ],
)
def test_a_layer_needs_what_was_counted_while_it_runs(targets: tuple, changes: dict, counted: int) -> None:
    one = plain_layer(work(lora_targets=targets, **changes), LLAMA, LLAMA.key_size)
    assert one.transient == pytest.approx(counted, rel=WITHIN)


def test_bitsandbytes_before_0_44_kept_the_input_of_every_4_bit_layer() -> None:
    old = {"method": "qlora", "keeps_4bit_inputs": True}
    frozen = plain_layer(work(lora_targets=(), method="qlora"), LLAMA, 2048).saved
    # two norms' outputs of H and the product of I, in 16 bit; attention keeps its own output already
    assert plain_layer(work(lora_targets=(), **old), LLAMA, 2048).saved == frozen + 2 * (2 * 2048 + 5504)
    # an adapter reads the same tensors
    adapted = plain_layer(work(lora_targets=LINEAR_LAYERS, **old), LLAMA, 2048).saved
    assert adapted == plain_layer(work(lora_targets=LINEAR_LAYERS, method="qlora"), LLAMA, 2048).saved


def test_dropout_and_autocast_keep_copies_and_no_originals() -> None:
    plain = plain_layer(work(lora_targets=(), **NARROW), LLAMA, 2048).saved
    one = plain_layer(work(lora_targets=("o_proj",)), LLAMA, 2048).saved
    assert one == plain + 2 * 2048  # its own copy of what attention keeps
    assert plain_layer(work(lora_targets=("o_proj",), **NARROW), LLAMA, 2048).saved == plain
    dropped = plain_layer(work(lora_targets=("o_proj",), lora_dropout=0.1, **NARROW), LLAMA, 2048).saved
    assert dropped == plain + 3 * 2048
