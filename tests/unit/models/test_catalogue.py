"""The catalogue: weights as published checkpoints count them, and names as reports write them."""

from dataclasses import replace

import pytest

from lowmem_rl.models.catalogue import CATALOGUE, find_shape, names_experts
from lowmem_rl.models.lookup import shape_from_config

# The hub's own totals (safetensors metadata), as debaditc/kvfit@bd4ccab/src/kvfit/data/models.json lists them.
HUB_TOTALS = {
    "meta-llama/Llama-2-7b-hf": 6_738_417_664 - 32 * 64,  # less the rotary frequencies this file holds as well
    "meta-llama/Llama-2-13b-hf": 13_015_866_880 - 40 * 64,  # the same
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Meta-Llama-3-70B": 70_553_706_496,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/phi-4": 14_659_507_200,
}

# Keras' own builds of the models: `params` in keras-team/keras-hub, keras_hub/src/models/*/*_presets.py. The hub's
# files of the two smallest Qwen3 hold their tied output matrix a second time and count more.
KERAS_TOTALS = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Magistral-Small-2509": 23_572_403_200,  # its elder Magistral-Small-2506, text alone
}

# What public code and cards print for the model itself or a fine-tune of it; for the last two in one place alone.
PRINTED_TOTALS = {
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "allenai/Llama-3.1-Tulu-3-8B": 8_030_326_784,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "deepseek-ai/deepseek-math-7b-base": 6_910_365_696,  # NuminaMath-7B's
    "microsoft/Phi-3-medium-4k-instruct": 13_960_238_080,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "google/gemma-2-2b": 2_614_341_888,  # this and the next three: keras-team/keras-hub as well
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "google/gemma-3-1b-it": 999_885_952,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/deepseek-coder-1.3b-instruct": 1_347_258_368 - 786_432,  # with an adapter of rank 4
    "deepseek-ai/deepseek-coder-6.7b-base": 6_740_512_768,
    "Qwen/Qwen-7B": 7_721_324_544,
    "Qwen/Qwen-14B": 14_167_290_880,
    "Qwen/Qwen1.5-0.5B-Chat": 463_987_712,
    "Qwen/Qwen1.5-1.8B": 1_836_828_672,
    "Qwen/Qwen1.5-4B": 3_950_369_280,
    "Qwen/Qwen1.5-32B": 32_512_218_112,
    "microsoft/Phi-3-mini-128k-instruct": 3_821_079_552,
    "01-ai/Yi-6B-Chat": 6_061_035_520,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
}


@pytest.mark.parametrize(("name", "total"), (HUB_TOTALS | KERAS_TOTALS | PRINTED_TOTALS).items())
def test_a_row_adds_up_to_the_published_count_of_weights_exactly(name: str, total: int) -> None:
    assert CATALOGUE[name].num_params == total


def test_a_row_without_a_published_count_adds_up_to_its_eight_bit_file() -> None:
    # Q8_0 takes 34 bytes for 32 weights; norms stay float32, and the file opens with the vocabulary.
    # 23640552448 bytes: ShelbyJenkins/llm_client@82edb3e, Mistral-Small-Instruct-2409-Q8_0.gguf.
    shape = CATALOGUE["mistralai/Mistral-Small-Instruct-2409"]
    norms = (2 * shape.num_layers + 1) * shape.hidden_size
    head_of_file = 23_640_552_448 - (shape.num_params - norms) * 34 / 32 - 4 * norms
    assert 0 < head_of_file < 2_000_000


def test_every_family_is_held_by_a_count() -> None:
    counted = {CATALOGUE[name].num_params for name in HUB_TOTALS | KERAS_TOTALS | PRINTED_TOTALS}
    left = {name for name, shape in CATALOGUE.items() if shape.num_params not in counted}
    assert left == {"mistralai/Mistral-Small-Instruct-2409"}


def test_our_sampler_runs_the_families_whose_layers_it_computes() -> None:
    others = {shape.architecture for shape in CATALOGUE.values() if not shape.is_sampled_by_us}
    assert others == {"Phi3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "QWenLMHeadModel"}


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("Llama-2-7B", "meta-llama/Llama-2-7b-hf"),
        ("NousResearch/Llama-2-70b-hf", "meta-llama/Llama-2-70b-hf"),
        ("unsloth/llama-3-8b-Instruct-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("unsloth/Qwen3-14B-Base-unsloth-bnb-4bit", "Qwen/Qwen3-14B"),
        ("unsloth/Phi-4", "microsoft/phi-4"),
    ],
)
def test_a_model_is_found_by_the_names_of_its_copies(written: str, key: str) -> None:
    found = find_shape(written)
    assert found is not None
    assert found.key == key


def test_other_models_are_not_guessed() -> None:
    assert find_shape("someone/Qwen2.5-8B") is None
    assert find_shape("Qwen2.5-VL-7B-Instruct") is None


def test_a_folder_of_gemma_or_of_the_first_qwen_has_the_catalogues_shape() -> None:
    gemma = {
        "architectures": ["Gemma2ForCausalLM"],  # its config.json has no key for tied embeddings
        "num_hidden_layers": 26,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
    }
    qwen = {
        "architectures": ["QWenLMHeadModel"],
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_attention_heads": 32,
        "vocab_size": 151_936,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }
    for config, name in ((gemma, "google/gemma-2-2b"), (qwen, "Qwen/Qwen-7B")):
        known = CATALOGUE[name]
        assert replace(shape_from_config(config), key=known.key, source=known.source) == known


@pytest.mark.parametrize(
    "name",
    [
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen1.5-MoE-A2.7B",
        "deepseek-ai/DeepSeek-V3",
        "deepseek-ai/DeepSeek-R1",
        "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
        "openai/gpt-oss-20b",
        "unsloth/Qwen3-30B-A3B-Instruct-2507-bnb-4bit",
    ],
)
def test_a_mixture_of_experts_is_known_by_its_name(name: str) -> None:
    assert names_experts(name)


def test_no_dense_model_is_taken_for_a_mixture() -> None:
    assert not [name for name in CATALOGUE if names_experts(name)]
