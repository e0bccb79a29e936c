"""A saved LoRA adapter: what it was made for, read without torch, and its weights put into a policy."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lowmem_rl.config import AdapterConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import RunDirError
from lowmem_rl.runs import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
HINT = "An adapter of plain LoRA on linear layers is a folder that save_pretrained of PEFT has written."
NOT_PLAIN = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform")
FEW = 256
"""Numbers of each frozen tensor that tell it from another one's."""


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
    missing = [name for name in found.missing_keys if "lora_" in name]
    if missing or found.unexpected_keys:
        name = (missing or found.unexpected_keys)[0]
        raise RunDirError(f"{path} does not fit its base model: {name} is in one of them only.", hint=HINT)


def weights_digest(policy: Policy) -> str:
    """Returns a name of the policy's present weights: of all that learns, and of some numbers of each frozen tensor."""
    digest = blake2b(digest_size=8)
    for name, parameter in policy.model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(_bytes(parameter if "lora_" in name else parameter.flatten()[:FEW]))
    return digest.hexdigest()


def _bytes(tensor: Any) -> bytes:
    import torch

    plain: bytes = tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes()
    return plain
