"""The numbers of an adapter, against the formulas of its paper."""

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import ConfigError
from lowmem_rl.memory import terms
from lowmem_rl.memory.adapter_tensors import frozen_numbers, learning_tensors, numbers_in
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape

QWEN_7B = load_shape("Qwen/Qwen2.5-7B-Instruct")
PLAIN = 40_370_176  # rank 16 on all linear layers, as Unsloth prints it
TINY = "adapter.peft_type=tinylora"
PLANNED = (
    "memory.micro_batch=4",
    "memory.rollout_rows=32",
    "memory.checkpointing=unsloth",
    "rollout.weights=quantized",
)


def run_of(*settings: str):
    return resolve(preset="qwen7b-24gb", settings=["model.name=Qwen/Qwen2.5-7B-Instruct", *PLANNED, *settings]).config


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ([], PLAIN),
        (["adapter.use_rslora=true"], PLAIN),
        # a magnitude an output: q, o and down 3584, k and v 512, gate and up 18944
        (["adapter.use_dora=true"], PLAIN + 28 * (3 * 3584 + 2 * 512 + 2 * 18944)),
        # 48 ranks more in 28 q_proj of 3584 inputs and outputs
        (["adapter.rank_pattern={q_proj=64}"], PLAIN + 28 * 48 * 2 * 3584),
        (['adapter.rank_pattern={"layers.27.self_attn.q_proj"=64}'], PLAIN + 48 * 2 * 3584),
        (["trainable.layers=last:1", "adapter.rank_pattern={q_proj=64}"], PLAIN // 28 + 48 * 2 * 3584),
        ([TINY], 13),
        ([TINY, "adapter.u=1"], 1),
        ([TINY, "adapter.u=2", "adapter.weight_tying=0"], 2 * 196),
    ],
)
def test_the_numbers_that_learn(settings, numbers) -> None:
    config = run_of(*settings)
    assert numbers_in(learning_tensors(config, QWEN_7B)) == numbers
    assert terms.trained_params(workload_of(config, QWEN_7B), QWEN_7B) == numbers


def test_a_plain_adapter_is_what_rank_and_targets_make_it() -> None:
    from dataclasses import replace

    planned = workload_of(run_of(), QWEN_7B)
    bare = replace(planned, adapter_tensors=None)
    assert estimate(planned, QWEN_7B, CARDS["a6000"]).phases == estimate(bare, QWEN_7B, CARDS["a6000"]).phases


def test_tinylora_keeps_two_vectors_of_each_side_and_its_random_matrices() -> None:
    config = run_of(TINY)
    # rank 2 instead of 16, and 13 matrices of 2 x 2 at each of 196 layers
    assert frozen_numbers(config, QWEN_7B) == PLAIN // 8 + 196 * 13 * 4
    assert terms.adapter(workload_of(config, QWEN_7B), QWEN_7B).expected_bytes == 4 * (13 + PLAIN // 8 + 196 * 52)
    assert frozen_numbers(run_of(), QWEN_7B) == 0


def test_a_pattern_for_a_layer_that_does_not_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no module with an adapter"):
        learning_tensors(run_of("trainable.layers=last:1", 'adapter.rank_pattern={"layers.0.mlp.up_proj"=8}'), QWEN_7B)


def test_phi_3_has_one_adapter_where_others_have_two_or_three() -> None:
    shape = load_shape("microsoft/Phi-3.5-mini-instruct")
    whole = 16 * ((3072 + 3 * 3072) + (3072 + 3072) + (3072 + 2 * 8192) + (8192 + 3072))
    assert numbers_in(learning_tensors(run_of(), shape)) == 32 * whole
    # Unsloth adapts the fused layer if any of its parts is named.
    assert numbers_in(learning_tensors(run_of('adapter.targets=["q_proj"]'), shape)) == 32 * 16 * (3072 + 3 * 3072)
    assert numbers_in(learning_tensors(run_of("adapter.rank_pattern={qkv_proj=32}"), shape)) == 32 * (
        whole + 16 * 4 * 3072
    )
