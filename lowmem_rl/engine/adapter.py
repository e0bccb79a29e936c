"""A saved LoRA adapter: what it was made for, read without torch, and its weights put into a policy."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import AdapterConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
HINT = "An adapter of plain LoRA on linear layers is a folder that save_pretrained of PEFT has written."
NOT_PLAIN = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform")
FEW = 256
"""Numbers of each frozen tensor that tell it from another one's."""
COPIED_TOGETHER = 16 * 2**20
"""Bytes: each copy waits for the card, and takes as much of its memory."""


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter's folder, the base model it names, and its shape."""

    path: Path
    base: str
    config: AdapterConfig


def read_adapter(path: Path) -> SavedAdapter:
    """Reads an adapter's folder without its weights. Raises `RunDirError` for one that is damaged or not plain LoRA."""
    written = read_json(path / CONFIG)
    if not (path / WEIGHTS).is_file():
        raise RunDirError(f"Adapter {path} has no {WEIGHTS}.", hint=HINT)
    try:
        kind, base = written["peft_type"], written["base_model_name_or_path"]
        if kind != "LORA" or any(written.get(key) for key in NOT_PLAIN) or not isinstance(base, str):
            raise ValueError(f"{kind!r} over {base!r}")
        fields = {"rank": written["r"], "alpha": written["lora_alpha"], "targets": written["target_modules"]}
        return SavedAdapter(path, base, AdapterConfig.model_validate(fields))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # pydantic's error is a ValueError
        raise RunDirError(f"{path / CONFIG} is none that can be loaded here.", hint=HINT) from error


def load_adapter(model: Any, path: Path) -> None:
    """Puts a saved adapter's weights in the place of the model's own. Raises `RunDirError` where they do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path / WEIGHTS)
        found = set_peft_model_state_dict(model, weights)
    except (OSError, SafetensorError, RuntimeError) as error:  # other shapes are a RuntimeError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunDirError(f"{path / WEIGHTS} cannot be loaded: {reason}", hint=HINT) from error
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}  # not TRL's copy of the start
    missing = sorted(learns.intersection(found.missing_keys))
    if missing or found.unexpected_keys:
        name = (missing or found.unexpected_keys)[0]
        raise RunDirError(f"{path} does not fit its base model: {name} is in one of them only.", hint=HINT)


def weights_digest(policy: Policy) -> str:
    """Returns a name of the policy's present weights: of all that learns, and of some numbers of each frozen tensor."""
    digest = blake2b(digest_size=8)
    named = list(policy.model.named_parameters())
    parts = [parameter if "lora_" in name else parameter.flatten()[:FEW] for name, parameter in named]
    for (name, parameter), plain in zip(named, _bytes(parts), strict=True):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(plain)
    return digest.hexdigest()


def _bytes(tensors: Iterable[Any]) -> Iterator[bytes]:
    """Yields the bytes of each tensor; as many as come to COPIED_TOGETHER come to the host in one copy.

    They may be on several devices: on a tight card Unsloth moves the embedding to the host (`offload_embedding`).
    """
    import torch

    waiting: list[Any] = []
    for tensor in tensors:
        if waiting and waiting[0].device != tensor.device:
            yield from _copied(waiting)
            waiting = []
        waiting.append(tensor.detach().contiguous().view(torch.uint8).flatten())
        if sum(map(len, waiting)) >= COPIED_TOGETHER:
            yield from _copied(waiting)
            waiting = []
    yield from _copied(waiting)


def _copied(tensors: Sequence[Any]) -> Iterator[bytes]:
    import torch

    if tensors:
        together = torch.cat(list(tensors)).cpu()
        yield from (part.numpy().tobytes() for part in together.split([len(tensor) for tensor in tensors]))
