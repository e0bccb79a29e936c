"""Models by name: the shape in config.json, and where to read it without a download.

A shape comes from a local directory, else from the hub's cache on this disk, else from the catalogue, so that a model
can be planned before a byte of it is fetched. Of weights only the headers are read.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowmem_rl.errors import ConfigError, LowMemError, SetupError, UnknownName, near_names
from lowmem_rl.models.catalogue import CATALOGUE as CATALOGUE
from lowmem_rl.models.catalogue import find_mirrored, names_experts
from lowmem_rl.models.hub import cached_snapshot, fetch_config, how_to_fetch, hub_cache, is_offline, why_no_hub
from lowmem_rl.models.shape import GEMMA2, GEMMA3, QWEN1, QWEN2, QWEN3, Quantised
from lowmem_rl.models.shape import ModelShape as ModelShape
from lowmem_rl.models.weight_files import missing_weights, read_json, tensor_bytes

TINY = "tiny"
TINY_DIRECTORY = Path(__file__).parents[1] / "_assets" / "tiny-qwen2"

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""A tokenizer has at least one of these files: the fast form, SentencePiece, byte-level BPE."""
_LARGEST_WIDTH = 1_000_000
_LARGEST = {"num_hidden_layers": 1000, "vocab_size": 10_000_000, "max_position_embeddings": 1_000_000_000}
"""Well beyond any model: what is larger is a damaged file."""
_STATE_SPACE = ("mamba", "rwkv", "jamba", "bamba", "zamba", "falcon_h1", "nemotron_h", "granitemoehybrid", "retnet")
_STATE_SPACE_KEYS = ("mamba_", "ssm_", "state_size", "linear_conv_kernel_dim", "linear_num_key_heads")
GGUF_FIX = (
    'Name the original model; or make a folder of the file: docs/stages.md, "From a GGUF" (transformers expands it '
    "with from_pretrained(FOLDER, gguf_file=NAME))."
)
_AGAIN = "Fetch the file again."


def load_shape(name: str, revision: str | None = None) -> ModelShape:
    """Returns the shape of a directory, of `tiny` or of a hub model; no weights are fetched.

    Raises `ConfigError` for a directory or a name that does not exist and for a model that is no causal decoder,
    `SetupError` for a hub model that is neither cached nor in the catalogue nor shown by the hub.
    """
    _refuse_gguf(name)
    if directory := local_directory(name):
        return _read_shape(name, directory / "config.json")
    snapshot = cached_snapshot(name, revision) if _looks_like_hub_name(name) else None
    if snapshot and (snapshot / "config.json").is_file():
        return _read_shape(name, snapshot / "config.json")
    if known := CATALOGUE.get(name) or find_mirrored(name):
        return known
    if _looks_like_hub_name(name) and names_experts(name):
        raise _mixture(name)
    if not _looks_like_hub_name(name) or is_offline():
        raise _unknown_model(name)
    try:
        return _read_shape(name, fetch_config(name, revision))
    except SetupError as error:
        error.hint = f"{error.hint} {_near(name)}".strip()
        raise


def _refuse_gguf(name: str) -> None:
    """Raises `ConfigError` for llama.cpp's file, for a folder with nothing else, and for the name of a hub's."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = next(iter(sorted(path.glob("*.gguf"))), None)
        file = None if (path / "config.json").is_file() else found
    else:
        file = path if name.lower().endswith((".gguf", "-gguf")) else None
    if file is not None:
        raise ConfigError(f"{file} is a GGUF: quantised for llama.cpp, it cannot be trained as it is.", hint=GGUF_FIX)


def model_path(name: str) -> str:
    """Returns what a loader takes: the directory of `tiny` or of a path, else the hub name as it is.

    Raises `ConfigError` for a path that does not exist, `SetupError` for a directory that lacks weights.
    """
    directory = local_directory(name)
    if directory is None:
        if not _looks_like_hub_name(name):
            raise _unknown_model(name)
        return name
    for problem in missing_weights(directory):
        raise SetupError(f"Model directory {directory}: {problem}.", hint="Fetch the missing files again, whole.")
    return str(directory)


def check_tokenizer(name: str, revision: str | None = None) -> None:
    """Checks the tokenizer of a directory or of a completely cached model; others are not known here.

    Raises `SetupError` if it has no files, `ConfigError` if it is broken or has no chat template.
    """
    directory = local_directory(name)
    if directory is None and _is_cached(name, revision):
        directory = cached_snapshot(name, revision)
    if directory is None:
        return
    if not _has_tokenizer(directory):
        what = f"Model directory {directory} has no tokenizer ({' or '.join(_TOKENIZERS)})."
        raise SetupError(what, hint="Put the tokenizer's files into it: tokenizer.save_pretrained writes them.")
    if not _has_chat_template(directory):
        what = f"{name} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json."
        raise ConfigError(
            what, hint="Use the model's instruct version, or put a chat_template.jinja into its directory."
        )


def check_bits(shape: ModelShape, bits: int | str, *, needs_16_bits: bool = False) -> None:
    """Raises `ConfigError` if a run says 16 bits, or needs them, and the model's files hold 4-bit weights."""
    if shape.quantised == "no":
        return
    if needs_16_bits:
        what = f"{shape.key} stores its weights in 4 bit, and whole layers that learn in turn need 16"
        raise ConfigError(f"{what} (trainable.schedule).", hint="Name the model in 16 bit, or leave the schedule out.")
    if bits == 16:
        what = f"model.bits is 16, but {shape.key} stores its weights in 4 bit."
        raise ConfigError(what, hint="Set model.bits=4, or name the model in 16 bit.")


def check_length(shape: ModelShape, prompt_tokens: int, completion_tokens: int) -> None:
    """Raises `ConfigError` if prompt and completion together are longer than the model takes."""
    total = prompt_tokens + completion_tokens
    if total <= shape.max_positions:
        return
    room = shape.max_positions - prompt_tokens
    raise ConfigError(
        f"grpo.max_prompt_tokens {prompt_tokens} + grpo.max_completion_tokens {completion_tokens} = {total} tokens, "
        f"but {shape.key} takes {shape.max_positions}.",
        hint=f"grpo.max_completion_tokens={room} fits." if room > 0 else "Shorten grpo.max_prompt_tokens first.",
    )


def shape_from_config(config: Mapping[str, Any], key: str = "model", source: str = "config.json") -> ModelShape:
    """Returns the shape in a config.json's content. Raises `ConfigError` unless it is a valid dense causal decoder."""
    architecture = _causal_architecture(config, key)
    heads = _number(config, "num_attention_heads", source)
    kv_heads = _number(config, "num_key_value_heads", source, default=heads)
    if heads % kv_heads:
        what = f"{source}: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}."
        raise ConfigError(what, hint=_AGAIN)
    hidden = _number(config, "hidden_size", source)
    return ModelShape(
        key=key,
        architecture=architecture,
        num_layers=_number(config, "num_hidden_layers", source),
        hidden_size=hidden,
        # Qwen's first class counts both halves of the MLP.
        intermediate_size=_number(config, "intermediate_size", source) // (2 if architecture == QWEN1 else 1),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_number(config, "head_dim", source, default=hidden // heads),
        vocab_size=_number(config, "vocab_size", source),
        tied_embeddings=_flag(config, "tie_word_embeddings", source, default=architecture in (GEMMA2, GEMMA3)),
        # These classes have the bias without a key for it.
        attention_bias=architecture in (QWEN1, QWEN2) or _flag(config, "attention_bias", source),
        max_positions=_number(config, "max_position_embeddings", source),
        source=source,
        qk_norm=architecture in (QWEN3, GEMMA3),
        post_norms=architecture in (GEMMA2, GEMMA3),
        quantised=_quantised(config, source),
    )


def _quantised(config: Mapping[str, Any], source: str) -> Quantised:
    """Returns what a checkpoint's own bitsandbytes settings say; if they skip parts of layers it is a dynamic one.

    Raises `ConfigError` for another form of quantised weights: a run has 4-bit ones of bitsandbytes, or 16-bit ones.
    """
    settings = config.get("quantization_config")
    if not settings:
        return "no"
    if not isinstance(settings, dict) or not settings.get("load_in_4bit"):
        method = settings.get("quant_method", "another form") if isinstance(settings, dict) else "another form"
        what = f"{source}: the weights are stored in {str(method)[:40]!r}, not in 16 bit or in bitsandbytes' 4 bit."
        raise ConfigError(what, hint="Name the original model: model.bits=4 quantises it.")
    skipped = settings.get("llm_int8_skip_modules")
    return "dynamic" if isinstance(skipped, list) and any("layers." in str(name) for name in skipped) else "plain"


def check_fetched(name: str, revision: str | None = None) -> None:
    """Raises `SetupError` for a hub model that is neither cached nor shown by the hub now."""
    if is_at_hand(name, revision):
        return
    if reason := why_no_hub():
        raise SetupError(
            f"{name} is not whole in {hub_cache()} (config.json, tokenizer, weights), and {reason}.",
            hint=how_to_fetch(name),
        )
    fetch_config(name, revision)


def is_at_hand(name: str, revision: str | None = None) -> bool:
    """Returns whether a model is whole on this disk: a folder, or config.json, tokenizer and weights in the cache."""
    return local_directory(name) is not None or _is_cached(name, revision)


def _is_cached(name: str, revision: str | None) -> bool:
    snapshot = cached_snapshot(name, revision)
    return snapshot is not None and _has_tokenizer(snapshot) and not any(missing_weights(snapshot))


def local_directory(name: str) -> Path | None:
    """Returns the folder that a model's name means, None for a hub name."""
    if name == TINY:
        return TINY_DIRECTORY
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def _looks_like_hub_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not any(part.startswith((".", "~")) for part in parts)


def _unknown_model(name: str) -> LowMemError:
    if _looks_like_hub_name(name):
        return SetupError(
            f"The shape of {name} is not known: it is neither in {hub_cache()} nor in the catalogue.",
            hint=f"Fetch it while online with: hf download {name} config.json. {_near(name)}",
        )
    if "/" in name or name.startswith((".", "~")):
        return ConfigError(
            f"There is no model directory {name!r}.", hint="A hub name has the form Qwen/Qwen2.5-1.5B; check the path."
        )
    return UnknownName("model", name, [TINY, *CATALOGUE])


def _near(name: str) -> str:
    return near_names(name, CATALOGUE).partition("Known")[0]


def _read_shape(key: str, path: Path) -> ModelShape:
    if not path.is_file():
        adapter = (path.parent / "adapter_config.json").is_file()
        raise ConfigError(
            f"Model directory {path.parent} has no config.json" + (": it holds an adapter only." if adapter else "."),
            hint="Name the base model instead." if adapter else "Name a directory that save_pretrained has written.",
        )
    shape = shape_from_config(_read_object(path), key=key, source=str(path))
    return replace(shape, file_bytes=tensor_bytes(path.parent))


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, not an object.", hint=_AGAIN)
    return content


def _causal_architecture(config: Mapping[str, Any], key: str) -> str:
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str) and name.isidentifier()] if isinstance(named, list) else []
    causal = next((name for name in names if name.endswith("ForCausalLM") or name == QWEN1), None)
    if causal is None:
        what = ", ".join(names) or f"model type {config.get('model_type', 'unknown')!r} without an architecture"
        raise ConfigError(f"{key} is not a causal language model but {what}.", hint="Name a ...ForCausalLM model.")
    if _has_state_space(config):
        what = f"{key} ({causal}) has state-space layers, which no formula here knows."
        raise ConfigError(what, hint="Name a model of attention layers alone, such as Qwen2.5.")
    if _has_experts(config):
        raise _mixture(f"{key} ({causal})")
    return causal


_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def _has_experts(config: Mapping[str, Any]) -> bool:
    """Returns whether a config, or a part of it as in DBRX, counts experts."""
    parts = (config, *(value for value in config.values() if isinstance(value, dict)))
    return any(part.get(key) for part in parts for key in _EXPERT_KEYS)


def _mixture(what: str) -> ConfigError:
    return ConfigError(
        f"{what} is a mixture of experts, which no formula here knows.", hint="Name a dense model, such as Qwen2.5."
    )


def _number(config: Mapping[str, Any], name: str, source: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{source}: {name} is {value!r}, not a positive integer.", hint=_AGAIN)
    if value > (most := _LARGEST.get(name, _LARGEST_WIDTH)):
        raise ConfigError(f"{source}: {name} is {value}; no model goes beyond {most}.", hint=_AGAIN)
    return value


def _flag(config: Mapping[str, Any], name: str, source: str, *, default: bool = False) -> bool:
    value = config.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{source}: {name} is {value!r}, neither true nor false.", hint=_AGAIN)
    return bool(value)


def _has_state_space(config: Mapping[str, Any]) -> bool:
    """Returns whether some layers keep a recurrent state instead of keys and values."""
    kind = str(config.get("model_type", "")).lower()
    return any(name in kind for name in _STATE_SPACE) or any(
        key.startswith(_STATE_SPACE_KEYS) and value for key, value in config.items()
    )


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _TOKENIZERS)


def _has_chat_template(directory: Path) -> bool:
    """Returns whether there is a template that transformers finds. Raises `ConfigError` for broken files."""
    if (directory / _TOKENIZERS[0]).is_file():
        read_json(directory / _TOKENIZERS[0])
    settings = directory / "tokenizer_config.json"
    values = _read_object(settings) if settings.is_file() else {}
    return bool(values.get("chat_template")) or (directory / "chat_template.jinja").is_file()
