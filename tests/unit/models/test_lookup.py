"""Shapes of models, and what is wrong with a model directory."""

import json
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from huggingface_hub import constants

from lowmem_rl.errors import ConfigError, SetupError, UnknownName
from lowmem_rl.models.hub import hub_cache
from lowmem_rl.models.lookup import (
    CATALOGUE,
    TINY_DIRECTORY,
    ModelShape,
    check_bits,
    check_fetched,
    check_length,
    check_tokenizer,
    load_shape,
    model_path,
    shape_from_config,
)

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 320,
}


def write_model(directory: Path, config: object = CONFIG, weights: bytes | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        (directory / "model.safetensors").write_bytes(weights)
    return directory


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(100)


def safetensors(num_bytes: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(num_bytes)


def num_params(shape: ModelShape) -> int:
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    attention = 2 * shape.hidden_size * (queries + keys) + shape.attention_bias * (queries + 2 * keys)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    return embeddings + shape.num_layers * layer + shape.hidden_size


@pytest.mark.parametrize(
    ("name", "billions"),  # as the model cards on the hub print them
    [
        ("Qwen/Qwen2.5-0.5B", 0.49),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.54),
        ("Qwen/Qwen2.5-3B", 3.09),
        ("Qwen/Qwen2.5-7B", 7.62),
        ("Qwen/Qwen2.5-14B", 14.77),
        ("Qwen/Qwen2.5-32B", 32.76),
        ("meta-llama/Llama-3.1-8B", 8.03),
        ("meta-llama/Llama-3.2-1B", 1.24),
        ("meta-llama/Llama-3.2-3B", 3.21),
        ("deepseek-ai/deepseek-math-7b-base", 6.91),
    ],
)
def test_a_catalogue_row_adds_up_to_the_size_on_the_models_card(name: str, billions: float) -> None:
    assert num_params(load_shape(name)) == pytest.approx(billions * 1e9, rel=0.01)


def test_every_catalogue_row_has_a_source_and_divides_evenly() -> None:
    for name, shape in CATALOGUE.items():
        assert shape.key == name
        assert name in shape.source
        assert shape.num_heads % shape.num_kv_heads == 0


def test_tiny_is_the_embedded_model() -> None:
    assert load_shape("tiny").key == "tiny"
    assert model_path("tiny") == str(TINY_DIRECTORY)


def test_a_local_directory_is_read_and_its_weights_are_looked_for(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", weights=safetensors(100))
    shape = load_shape(str(model))
    assert (shape.num_layers, shape.head_dim, shape.attention_bias, shape.tied_embeddings) == (2, 16, True, True)
    assert shape.source == str(model / "config.json")
    assert model_path(str(model)) == str(model)


def test_the_hubs_cache_goes_before_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = hub_cache() / "models--Qwen--Qwen2.5-7B"
    write_model(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    assert load_shape("Qwen/Qwen2.5-7B").num_layers == 2
    assert load_shape("Qwen/Qwen2.5-7B", revision="abc123").num_layers == 2
    assert load_shape("Qwen/Qwen2.5-7B", revision="other").num_layers == 28


def test_a_half_downloaded_directory_names_the_missing_file(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    assert load_shape(str(model)).num_layers == 2
    with pytest.raises(SetupError, match="no weights"):
        model_path(str(model))
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (model / shards["a"]).write_bytes(safetensors(10))
    with pytest.raises(SetupError, match=r"model-00002-of-00002\.safetensors is missing"):
        model_path(str(model))


def zipped(content: bytes = b"tensors") -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("single", "content"), [("model.safetensors", safetensors(10)), ("pytorch_model.bin", zipped())]
)
def test_weights_in_shards_are_found_in_both_formats(tmp_path: Path, single: str, content: bytes) -> None:
    stem, suffix = single.split(".")
    shards = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    model = write_model(tmp_path)
    index = {"metadata": {"total_size": 20}, "weight_map": dict(zip("ab", shards, strict=True))}
    (model / f"{single}.index.json").write_text(json.dumps(index))
    (model / shards[0]).write_bytes(content)
    assert load_shape(str(model)).file_bytes == 20
    with pytest.raises(SetupError, match=f"{shards[1]} is missing, which {single}.index.json names"):
        model_path(str(model))
    for cut in (content[:-1], LFS_POINTER, b""):
        (model / shards[1]).write_bytes(cut)
        with pytest.raises(SetupError, match=f"{shards[1]} is cut short or broken"):
            model_path(str(model))
    (model / shards[1]).write_bytes(content)
    assert model_path(str(model)) == str(model)


def test_weights_in_torch_s_format_before_1_6_are_whole(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(1, protocol=2))
    assert model_path(str(model)) == str(model)


def test_of_both_formats_the_one_that_transformers_loads_is_checked(tmp_path: Path) -> None:
    model = write_model(tmp_path, weights=safetensors(10))
    (model / "pytorch_model.bin").write_bytes(LFS_POINTER)
    (model / "model.safetensors.index.json").write_text("{")
    assert model_path(str(model)) == str(model)


@pytest.mark.parametrize(
    "weights", [b"", safetensors(100)[:-1], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"]
)
def test_weights_that_are_cut_short_are_found(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(SetupError, match="cut short"):
        model_path(str(write_model(tmp_path, weights=weights)))


@pytest.mark.parametrize(
    "header", [b"", b"{", b"\xff", b"[]", b"{}", b'{"w": 1}', b'{"w": {"data_offsets": ["a", "b"]}}']
)
def test_weights_with_a_broken_header_are_found(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(SetupError, match="cut short or broken"):
        model_path(str(write_model(tmp_path, weights=with_header(header))))


def write_tokenizer(directory: Path, config: object = None, tokenizer: str = "{}") -> None:
    (directory / "tokenizer.json").write_text(tokenizer)
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_model_without_tokenizer_or_chat_template_is_refused_with_the_fix(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", weights=safetensors(10))
    with pytest.raises(SetupError, match="has no tokenizer"):
        check_tokenizer(str(model))
    for config in (None, {"chat_template": None}):
        write_tokenizer(model, config)
        with pytest.raises(ConfigError, match="has no chat template") as caught:
            check_tokenizer(str(model))
        assert "instruct" in caught.value.hint
    write_tokenizer(model, {"chat_template": "{{ messages }}"})
    check_tokenizer(str(model))


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    for config, tokenizer in (({}, "{"), ([], "{}")):
        write_tokenizer(tmp_path, config, tokenizer)
        with pytest.raises(ConfigError, match=r"tokenizer(_config)?\.json"):
            check_tokenizer(str(tmp_path))


def test_a_cached_model_counts_as_fetched_only_with_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = hub_cache() / "models--some--one" / "snapshots" / "main"
    write_model(snapshot, weights=safetensors(10))
    check_tokenizer("some/one")
    with pytest.raises(SetupError, match="is not whole in .*tokenizer"):
        check_fetched("some/one")
    write_tokenizer(snapshot)
    check_fetched("some/one")
    with pytest.raises(ConfigError, match="some/one has no chat template"):
        check_tokenizer("some/one")


def test_the_embedded_model_has_its_tokenizer() -> None:
    check_tokenizer("tiny")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "not an object"),
        (CONFIG | {"architectures": ["BertForMaskedLM"]}, "not a causal language model but BertForMaskedLM"),
        ({"model_type": "clip"}, "model type 'clip'"),
        (CONFIG | {"architectures": ["\x1b[31mForCausalLM"]}, "without an architecture"),
        (CONFIG | {"num_experts": 8}, "mixture of experts"),
        (CONFIG | {"moe_num_experts": 8}, "mixture of experts, which no formula here knows"),
        ({"architectures": ["DbrxForCausalLM"], "ffn_config": {"moe_num_experts": 16}}, "mixture of experts"),
        (CONFIG | {"hidden_size": "64"}, "hidden_size is '64'"),
        (CONFIG | {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({k: v for k, v in CONFIG.items() if k != "vocab_size"}, "vocab_size is None"),
    ],
)
def test_a_config_that_is_no_dense_causal_model_says_what_it_is(tmp_path: Path, config: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_shape(str(write_model(tmp_path, config)))
    assert caught.value.hint


def test_a_mixture_of_experts_that_is_not_here_is_named_as_one() -> None:
    with pytest.raises(ConfigError, match="Qwen/Qwen3-30B-A3B is a mixture of experts") as caught:
        load_shape("Qwen/Qwen3-30B-A3B")
    assert caught.value.hint == "Name a dense model, such as Qwen2.5."


def test_an_adapter_directory_asks_for_its_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="adapter only"):
        load_shape(str(tmp_path))


def test_paths_and_names_that_do_not_exist_have_different_errors() -> None:
    with pytest.raises(ConfigError, match=r"no model directory '\./models/mine'"):
        load_shape("./models/mine")
    with pytest.raises(UnknownName) as near:
        load_shape("Qwen2.5-7B")
    assert "Qwen/Qwen2.5-7B" in near.value.hint
    with pytest.raises(SetupError) as fetch:
        load_shape("someone/unheard-of")
    assert "hf download someone/unheard-of config.json" in fetch.value.hint
    with pytest.raises(ConfigError):
        model_path("nowhere")
    assert model_path("someone/unheard-of") == "someone/unheard-of"


BNB_4BIT = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize("skipped", [None, ["lm_head"], ["model.layers.0.self_attn"]])
def test_sixteen_bits_over_a_model_in_four_are_refused(tmp_path: Path, skipped: list[str] | None) -> None:
    settings = BNB_4BIT | {"llm_int8_skip_modules": skipped}
    shape = load_shape(str(write_model(tmp_path, CONFIG | {"quantization_config": settings})))
    check_bits(shape, 4)
    with pytest.raises(ConfigError, match="model.bits is 16") as refused:
        check_bits(shape, 16)
    assert "model.bits=4" in refused.value.hint
    check_bits(load_shape("tiny"), 16)
    check_bits(load_shape("tiny"), 4, needs_16_bits=True)
    with pytest.raises(ConfigError, match="stores its weights in 4 bit"):
        check_bits(load_shape("unsloth/Qwen2.5-7B-bnb-4bit"), 16)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_weights_quantised_by_another_method_are_refused(tmp_path: Path, method: str) -> None:
    model = write_model(tmp_path, CONFIG | {"quantization_config": {"quant_method": method, "bits": 4}})
    with pytest.raises(ConfigError, match=f"stored in '{method}'"):
        load_shape(str(model))


def test_a_run_longer_than_the_model_is_refused_with_a_length_that_fits() -> None:
    shape = load_shape("Qwen/Qwen2.5-Math-7B")
    check_length(shape, 1024, 3072)
    with pytest.raises(ConfigError, match="4097 tokens") as caught:
        check_length(shape, 1024, 3073)
    assert caught.value.hint == "grpo.max_completion_tokens=3072 fits."


def test_missing_keys_take_the_defaults_of_the_architecture() -> None:
    plain = {k: v for k, v in CONFIG.items() if k not in ("num_key_value_heads", "tie_word_embeddings")}
    shape = shape_from_config(plain | {"architectures": ["LlamaForCausalLM"], "head_dim": 32})
    assert (shape.num_kv_heads, shape.head_dim) == (4, 32)
    assert not shape.attention_bias
    assert not shape.tied_embeddings


@pytest.mark.parametrize("name", ["smol.Q4_1.gguf", ".", "Qwen/Qwen2.5-7B-Instruct-GGUF"])
def test_a_gguf_is_refused_with_the_way_to_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("smol.Q4_1.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="is a GGUF") as raised:
        load_shape(name)
    assert "gguf_file" in raised.value.hint
