"""Whole weights as files that need neither PEFT nor this package: Hugging Face names, shards and their index."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.engine.adapter import WEIGHTS, layer_of, read_adapter
from lowmem_rl.engine.policy import TRAINABLE
from lowmem_rl.storage.run_dir import read_json, write_json

INDEX = "model.safetensors.index.json"
_PEFT_PREFIX = "base_model.model."
_SHARD_BYTES = 4 * 10**9
"""Of the tensors in one file, which with its header stays below 4 GiB."""
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_whole(adapter: Path) -> bool:
    """Returns whether a folder that a run has saved holds whole weights instead of an adapter."""
    return read_adapter(adapter).trainable.method == "full"


def learned_weights(adapter: Path) -> dict[str, Any]:
    """Returns a run's whole weights as they learned, by Hugging Face name; a tied head is left to its embedding."""
    found = {name.removeprefix(_PEFT_PREFIX): weight for name, weight in load_file(adapter / WEIGHTS).items()}
    if _HEAD in found and _EMBEDDING in found and found[_HEAD].equal(found[_EMBEDDING]):
        del found[_HEAD]
    return found


def write_weights(weights: Mapping[str, Any], folder: Path, dtype: Any, about: Mapping[str, Any]) -> None:
    """Writes shards of at most 4 GiB in `dtype`, their index, and trainable.json: `about` and which layers they are."""
    from huggingface_hub import split_torch_state_dict_into_shards

    narrow = {name: weight.to(dtype).contiguous() for name, weight in weights.items()}
    split = split_torch_state_dict_into_shards(narrow, max_shard_size=_SHARD_BYTES)
    shards = list(split.filename_to_tensors.values())
    files: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: narrow[name] for name in names}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    total = sum(weight.numel() * weight.element_size() for weight in narrow.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))})
    write_json(folder / TRAINABLE, {**about, "layers": text_of(layers_in(weights))})


def layers_in(names: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the decoder layers that some Hugging Face names belong to."""
    return tuple(sorted({layer for layer in map(layer_of, names) if layer is not None}))


def read_weights(folder: Path) -> dict[str, Any]:
    """Returns all weights that `write_weights` has written."""
    files = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    return {name: weight for file in files for name, weight in load_file(folder / file).items()}


def put_weights(model: Any, weights: Mapping[str, Any]) -> Any:
    """Returns the model with these weights in place of its own. Raises `RuntimeError` for one that it has not."""
    if unknown := model.load_state_dict(dict(weights), strict=False).unexpected_keys:
        raise RuntimeError(f"the base model has no {unknown[0]}")
    return model
