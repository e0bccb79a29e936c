"""A saved LoRA adapter: what it was made for, read without torch, and its weights loaded into a policy."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import AdapterConfig, ModelConfig, RunConfig, TrainableConfig
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.engine.policy import TRAINABLE, Policy
from lowmem_rl.errors import RunDirError
from lowmem_rl.models.fingerprint import base_digests
from lowmem_rl.storage.run_dir import read_json
from lowmem_rl.trainable.selection import with_layers

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_HINT = "An adapter of LoRA or TinyLoRA on linear layers is a folder that save_pretrained of PEFT has written."
_NOT_READ = ("modules_to_save", "layers_pattern", "alora_invocation_tokens", "arrow_config", "lora_bias")
_AS_WRITTEN = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "u", "weight_tying")
"""Settings that PEFT's configuration has under the same names; it has those of its kind of adapter alone."""
_NO_TARGET, _MOST_BYTES = "dummy-target-modules", 2**20
"""What `target_modules` of whole weights is (`peft.utils.constants.DUMMY_TARGET_MODULES`), and the longest list of them
that is read."""
_WHOLE = ".modules_to_save.default"
"""In the names of whole weights that learn; files leave it out."""
_FROZEN_SAMPLE = 256
"""Numbers of each frozen tensor that are enough to identify it."""
_COPY_BYTES = 16 * 2**20
"""Bytes of one copy: each copy waits for the card, and takes as much of its memory."""


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter's folder, the base model it names, and its shape."""

    path: Path
    base: str
    config: AdapterConfig
    trainable: TrainableConfig
    """Which layers have an adapter, or which weights have learned whole."""
    base_digests: Mapping[str, str] = field(default_factory=dict)
    """Of whole weights: what identifies their base (`models.fingerprint`); nothing if an older version saved them."""


def read_adapter(path: Path) -> SavedAdapter:
    """Reads an adapter's folder without its weights. Raises `RunDirError` if it is damaged or another kind."""
    written = read_json(path / CONFIG)
    if not (path / WEIGHTS).is_file():
        raise RunDirError(f"Adapter {path} has no {WEIGHTS}.", hint=_HINT)
    try:
        kind, base = written["peft_type"], written["base_model_name_or_path"]
        if any(written.get(key) for key in _NOT_READ) or not isinstance(base, str):
            raise ValueError(f"{kind!r} over {base!r}")
        fields = {"peft_type": kind.lower(), "targets": written["target_modules"]}
        if kind == "LORA":
            fields |= {"rank": written["r"], "alpha": written["lora_alpha"]}
        fields |= {key: written[key] for key in _AS_WRITTEN if written.get(key) is not None}
        if written["target_modules"] == _NO_TARGET or _is_there(path / TRAINABLE):
            return SavedAdapter(path, base, AdapterConfig(), *_read_trainable(path / TRAINABLE))
        layers = written.get("layers_to_transform")
        trainable = TrainableConfig.model_validate({} if layers is None else {"layers": layers})
        return SavedAdapter(path, base, AdapterConfig.model_validate(fields), trainable)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # pydantic's error is a ValueError
        raise RunDirError(
            f"{path / CONFIG} is not a LoRA or TinyLoRA adapter that can be loaded here.", hint=_HINT
        ) from error


def with_saved_layers(config: RunConfig, adapter: Path) -> RunConfig:
    """Returns a run's configuration with the layers of its adapter, if the run has selected them.

    Raises as `read_adapter` does.
    """
    return config if config.trainable.select == "none" else with_layers(config, read_adapter(adapter).trainable.layers)


def _is_there(path: Path) -> bool:
    """True for a broken link, too."""
    return path.exists() or path.is_symlink()


_OF_THE_BASE = ("base", "revision", "bits", "base_digests")
"""Keys of trainable.json that are not of the section `trainable`."""


def _read_trainable(path: Path) -> tuple[TrainableConfig, dict[str, str]]:
    """Reads which weights have learned whole, and the digests of their base. Raises `RunDirError` or `ValueError`."""
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise RunDirError(f"{path} is larger than {_MOST_BYTES} bytes.", hint="Restore the file that `train` wrote.")
    found = read_json(path)
    digests = found.get("base_digests", {})
    if not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError("a digest is no text")
    section = {key: value for key, value in found.items() if key not in _OF_THE_BASE}
    return TrainableConfig.model_validate(section), digests


def check_base(path: Path, model: ModelConfig) -> None:
    """Raises `RunDirError` if a folder holds whole weights that learned over another model; reads no weights."""
    saved = read_adapter(path) if _is_there(path / TRAINABLE) else None
    if saved is None or not saved.base_digests:
        return
    here = base_digests(model.name, model.revision)
    for part, digest in saved.base_digests.items():
        if here.get(part, digest) != digest:
            raise RunDirError(
                f"The whole weights in {path} learned over another model than {model.name}: its {part} differs.",
                hint="Give the folder or name of the model over which they learned (model.name), as it was then.",
            )


def load_adapter(model: ModelLike, path: Path) -> None:
    """Replaces the model's adapter weights with saved ones. Raises `RunDirError` if they do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(path / WEIGHTS)
        found = set_peft_model_state_dict(model, saved)
    except KeyError as error:  # whole weights of other modules
        what = f"{path} does not fit its base model: {error.args[0]} is in one of them only."
        raise RunDirError(what, hint=_HINT) from error
    except (OSError, SafetensorError, RuntimeError) as error:  # other shapes are a RuntimeError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunDirError(f"{path / WEIGHTS} cannot be loaded: {reason}", hint=_HINT) from error
    named, missing = list(model.named_parameters(remove_duplicate=False)), set(found.missing_keys)
    loaded = {weight for name, weight in named if name not in missing}  # under one of its names
    # TRL's copy of the start does not learn.
    lacking = sorted(name for name, weight in named if weight.requires_grad and weight not in loaded)
    different = lacking or found.unexpected_keys or _left_out(model, saved)
    if different:
        raise RunDirError(f"{path} does not fit its base model: {different[0]} is in one of them only.", hint=_HINT)


def _left_out(model: ModelLike, saved: Iterable[str]) -> list[str]:
    """Returns whole weights that the model does not learn, which PEFT passes over without a word."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if _WHOLE in name]
    return sorted(set(saved) - {name.replace(_WHOLE, "") for name in names}) if names else []


def become_base(model: ModelLike) -> None:
    """Makes it compute as the base model again.

    A LoRA's outer matrix is 0, DoRA's magnitudes are the weights' norms, TinyLoRA's numbers are 0, and whole weights
    are the originals.
    """
    import torch

    from lowmem_rl.engine.dora import reset_magnitudes

    with torch.no_grad():
        for module in model.modules():
            if hasattr(type(module), "become_original"):
                module.become_original()
        for name, weight in model.named_parameters():
            if ".lora_B." in name or ".tinylora_v." in name:
                weight.zero_()
        reset_magnitudes(model)


def weights_digest(policy: Policy) -> str:
    """Returns a hash of the policy's present weights: of the whole adapter and of some numbers of each frozen one."""
    digest = blake2b(digest_size=8)
    named = [*policy.model.named_parameters(), *((n, b) for n, b in policy.model.named_buffers() if "tinylora_" in n)]
    parts = [
        weight if "lora_" in name or "modules_to_save" in name else weight.flatten()[:_FROZEN_SAMPLE]
        for name, weight in named
    ]
    for (name, weight), content in zip(named, _bytes(parts), strict=True):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(content)
    return digest.hexdigest()


def _bytes(tensors: Iterable[Any]) -> Iterator[bytes]:
    """Yields the bytes of each tensor, copied to the host in joined parts of about _COPY_BYTES.

    They may be on several devices: on a tight card Unsloth moves the embedding to the host (`offload_embedding`).
    """
    import torch

    for _, on_one_device in groupby(tensors, key=lambda tensor: tensor.device):
        waiting: list[Any] = []
        for tensor in on_one_device:
            waiting.append(tensor.detach().contiguous().view(torch.uint8).flatten())
            if sum(map(len, waiting)) >= _COPY_BYTES:
                yield from _copied(waiting)
                waiting = []
        if waiting:
            yield from _copied(waiting)


def _copied(parts: list[Any]) -> Iterator[bytes]:
    import torch

    joined = torch.cat(parts).cpu()
    yield from (part.numpy().tobytes() for part in joined.split([len(part) for part in parts]))
