"""Whole weights as files that need neither PEFT nor this package: Hugging Face names, shards and their index."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.engine.adapter import WEIGHTS, read_adapter
from lowmem_rl.engine.peft_model import layer_of
from lowmem_rl.engine.policy import TRAINABLE, Policy
from lowmem_rl.storage.run_dir import read_json, write_json

INDEX = "model.safetensors.index.json"
_PEFT_PREFIX = "base_model.model."
_SHARD_BYTES = 4 * 10**9
"""Of the tensors in one file, which with its header stays below 4 GiB."""
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_whole(adapter: Path) -> bool:
    """Returns whether a folder that a run has saved holds whole weights instead of an adapter."""
    return read_adapter(adapter).trainable.method == "full"


class LearnedWeights(Mapping[str, Any]):
    """A run's whole weights as they learned, by Hugging Face name; each is read when it is asked for."""

    def __init__(self, adapter: Path) -> None:
        from safetensors import safe_open

        self._file: Any = safe_open(adapter / WEIGHTS, "pt")
        names = self._file.keys()  # type: ignore[no-untyped-call]
        self._names = {name.removeprefix(_PEFT_PREFIX): name for name in names}
        if {_HEAD, _EMBEDDING} <= self._names.keys() and self[_HEAD].equal(self[_EMBEDDING]):
            del self._names[_HEAD]  # tied: left to its embedding

    def __getitem__(self, name: str) -> Any:
        return self._file.get_tensor(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_learned(policy: Policy, adapter: Path, folder: Path) -> None:
    """Writes the whole weights of `adapter`, which the policy has saved, for others: with its tokenizer."""
    import torch

    about = {"method": policy.trainable.method, **policy.base}
    write_weights(LearnedWeights(adapter), folder, getattr(torch, file_dtype(policy.device.dtype)), about)
    policy.tokenizer.save_pretrained(folder)


def file_dtype(compute_dtype: str) -> str:
    """Returns the 16-bit type of whole weights in files, given the type that computes."""
    return "bfloat16" if compute_dtype == "float32" else compute_dtype


def write_weights(weights: Mapping[str, Any], folder: Path, dtype: Any, about: Mapping[str, Any]) -> None:
    """Writes shards of at most 4 GiB in `dtype`, their index, and trainable.json: `about` and which layers they are."""
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors.torch import save_file

    sizes = {name: weight.numel() * dtype.itemsize for name, weight in weights.items()}
    split = split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern="{suffix}", max_shard_size=_SHARD_BYTES
    )
    shards = list(split.filename_to_tensors.values())
    files: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        narrow = {name: weights[name].to(dtype).contiguous() for name in names}  # of one shard at a time
        save_file(narrow, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    total = sum(sizes.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))})
    write_json(folder / TRAINABLE, {**about, "layers": text_of(layers_in(weights))})


def layers_in(names: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the decoder layers that some Hugging Face names belong to."""
    return tuple(sorted({layer for layer in map(layer_of, names) if layer is not None}))


def read_weights(folder: Path) -> dict[str, Any]:
    """Returns all weights that `write_weights` has written."""
    from safetensors.torch import load_file

    files = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    return {name: weight for file in files for name, weight in load_file(folder / file).items()}


def put_weights(model: Any, weights: Mapping[str, Any]) -> Any:
    """Returns the model with these weights in place of its own. Raises `RuntimeError` for one that it has not."""
    if unknown := model.load_state_dict(dict(weights), strict=False).unexpected_keys:
        raise RuntimeError(f"the base model has no {unknown[0]}")
    return model
