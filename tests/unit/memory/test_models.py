"""What a config.json and the files next to it may claim before the formulas believe it; models under mirrors' names."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape, shape_from_config
from lowmem_rl.planning.overrides import with_overrides

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1001}, "num_hidden_layers is 1001"),
        ({"hidden_size": 10**7}, "hidden_size is 10000000"),
        ({"vocab_size": 10**8}, "vocab_size is"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        ({"attention_bias": 1}, "attention_bias is 1"),
        ({"model_type": "falcon_mamba"}, "state-space"),
        ({"model_type": "qwen3_next", "linear_num_key_heads": 16}, "state-space"),
        ({"mamba_d_state": 128}, "state-space"),
    ],
)
def test_what_no_model_can_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        shape_from_config(CONFIG | changes)
    assert caught.value.hint


@pytest.mark.parametrize("suffix", ["", "-bnb-4bit", "-unsloth-bnb-4bit"])
def test_unsloths_copies_have_their_originals_shape_without_a_network(suffix: str) -> None:
    copy = load_shape(f"unsloth/Qwen2.5-7B-Instruct{suffix}")
    original = load_shape("Qwen/Qwen2.5-7B-Instruct")
    assert (copy.num_params, copy.max_positions) == (original.num_params, original.max_positions)
    assert copy.key.startswith("unsloth/")


def test_another_owners_copy_may_be_another_model() -> None:
    with pytest.raises(SetupError):
        load_shape("someone/Qwen2.5-7B-Instruct-bnb-4bit")


# 2 layers of 4 x 64 x 64 (keys: half) + 3 x 64 x 128 = 36864 weights; two matrices of 320 x 64, five norms of 64.
LINEAR, OTHER = 2 * 36_864, 2 * 320 * 64 + 5 * 64
QUANTISED = CONFIG | {"quantization_config": {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]}}
DYNAMIC = CONFIG | {"quantization_config": {"load_in_4bit": True, "llm_int8_skip_modules": ["model.layers.0.mlp"]}}


def write(directory: Path, config: dict[str, Any], index: object) -> str:
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    return str(directory)


def of_size(num_bytes: object) -> dict[str, Any]:
    return {"metadata": {"total_size": num_bytes}, "weight_map": {}}


def needed(name: str, **sections: Any) -> MemoryEstimate:
    lengths = {"max_prompt_tokens": 32, "max_completion_tokens": 32}
    config = RunConfig.model_validate({"grpo": lengths, "model": {"name": name}} | sections)
    config = with_overrides(config, {"memory.checkpointing": "unsloth", "rollout.weights": "quantized"})
    shape = load_shape(name)
    return estimate(workload_of(config, shape), shape, CARDS["t4"])


@pytest.mark.parametrize("num_bytes", [2 * (LINEAR + OTHER), 4 * (LINEAR + OTHER)])
def test_files_of_the_counted_size_in_16_or_32_bit_change_nothing(tmp_path: Path, num_bytes: int) -> None:
    found = needed(write(tmp_path, CONFIG, of_size(num_bytes)))
    assert found.shape.file_bytes == num_bytes
    assert len(found.notes) == 1


def test_weights_that_the_formulas_lack_are_added_and_reported(tmp_path: Path) -> None:
    found = needed(write(tmp_path, CONFIG, of_size(2 * (LINEAR + OTHER) + 20_000)))
    (extra,) = (part for part in found.phases["load"] if part.name == "weights of no formula")
    # 10000 weights: 4 bits and their constants if they are linear layers, 16 bits at most
    assert (extra.expected_bytes, extra.upper_bytes) == (5159, 20_000)
    assert "the rest is added" in found.notes[1]


def test_files_smaller_than_their_config_change_no_formula_and_are_reported(tmp_path: Path) -> None:
    found = needed(write(tmp_path, CONFIG, of_size(2 * OTHER)))
    assert found.upper_bytes == needed(write(tmp_path, CONFIG, {})).upper_bytes
    assert "the formulas decide" in found.notes[1]


def test_a_checkpoint_in_4_bit_counts_with_the_size_of_its_files(tmp_path: Path) -> None:
    found = needed(write(tmp_path, QUANTISED, of_size(60_000 + 2 * OTHER)))
    weights = found.phases["load"][0]
    assert (weights.expected_bytes, weights.upper_bytes, weights.grade) == (60_000, 60_000, "measured here")
    assert "matrix being quantised" not in [part.name for part in found.phases["load"]]


def test_a_size_no_4_bit_checkpoint_has_leaves_the_formulas_alone(tmp_path: Path) -> None:
    found = needed(write(tmp_path, QUANTISED, of_size(2 * OTHER + 9)))
    assert found.phases["load"][0].expected_bytes == pytest.approx(LINEAR * 0.516, rel=0.001)
    assert "no 4-bit copy" in found.notes[1]


def test_a_dynamic_checkpoint_is_known_by_the_layers_it_skips(tmp_path: Path) -> None:
    shape = load_shape(write(tmp_path, DYNAMIC, {}))
    assert (shape.quantised, shape.file_bytes) == ("dynamic", None)
    assert load_shape("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit").quantised == "dynamic"
    assert load_shape("unsloth/Qwen2.5-7B-Instruct-bnb-4bit").quantised == "plain"
    dynamic, plain = (needed(f"unsloth/Qwen2.5-7B-Instruct{end}") for end in ("-unsloth-bnb-4bit", "-bnb-4bit"))
    assert dynamic.phase_bytes("save") - plain.phase_bytes("save") > 1.5 * 2**30


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[" * 100_000,
        [],
        {"metadata": 7},
        of_size("9"),
        of_size(-1),
        of_size(True),
        of_size(float("nan")),
        of_size(10**30),
    ],
)
def test_an_index_without_a_size_is_accepted(tmp_path: Path, index: object) -> None:
    assert load_shape(write(tmp_path, CONFIG, index)).file_bytes is None


def test_the_embedded_models_only_file_is_as_large_as_its_config_says() -> None:
    shape = load_shape("tiny")
    assert shape.file_bytes
    assert shape.files_agree
