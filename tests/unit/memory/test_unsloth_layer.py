"""What PEFT and dropout keep in a layer of Unsloth's; the simulated card counts it in tests/rehearsal/test_bytes.py."""

from dataclasses import replace

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.memory.activations import layer_of
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.lookup import load_shape

QWEN, LLAMA = load_shape("Qwen/Qwen2.5-1.5B-Instruct"), load_shape("unsloth/Llama-3.2-1B-Instruct")
QV = ("q_proj", "v_proj")


@pytest.fixture
def lora() -> Workload:
    rows = ("memory.micro_batch=8", "memory.rollout_rows=8", "rollout.weights=quantized")
    settings = ("model.bits=16", "memory.checkpointing=none", *rows)
    return workload_of(resolve(preset="qwen1.5b-24gb", settings=settings).config, QWEN)


def saved(workload: Workload, shape=QWEN, **changes) -> float:
    return layer_of(replace(workload, **changes), shape).saved


def test_with_biases_q_k_and_v_keep_a_copy_each_over_16_bit_weights(lora: Workload) -> None:
    assert saved(lora) - saved(lora, method="qlora") == 2 * 2 * QWEN.hidden_size
    assert saved(lora, LLAMA) == saved(lora, LLAMA, method="qlora")
    assert saved(lora, lora_targets=QV) - saved(lora, lora_targets=QV, method="qlora") == 2 * QWEN.hidden_size


def test_without_biases_they_do_if_not_all_three_have_an_adapter(lora: Workload) -> None:
    assert saved(lora, LLAMA, lora_targets=QV) - saved(lora, LLAMA) == 2 * LLAMA.hidden_size


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_dropout_keeps_a_byte_for_each_number_that_an_adapter_reads(method: str, lora: Workload) -> None:
    read = sum(size[0] for name, size in LLAMA.linear_sizes.items() if name in lora.lora_targets)
    dropped, plain = (saved(lora, LLAMA, method=method, lora_dropout=share) for share in (0.05, 0.0))
    assert dropped - plain == read == 6 * LLAMA.hidden_size + LLAMA.intermediate_size
