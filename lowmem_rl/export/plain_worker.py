"""Models through plain transformers and peft, without Unsloth: what merges and what receives an export."""

from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """What an adapter stands on. `quantization` is bitsandbytes' configuration for weights that are not quantised yet.

    `dtype` is "auto" for the one in which the weights are stored.
    """

    name: str
    revision: str | None
    quantization: dict[str, Any] | None
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def load_plain(base: BaseModelSpec) -> Any:
    """Loads a causal language model ready to answer, on the GPU where there is one."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = {"quantization_config": BitsAndBytesConfig.from_dict(base.quantization)} if base.quantization else {}
    place = {"device_map": {"": 0}} if torch.cuda.is_available() else {}
    model = AutoModelForCausalLM.from_pretrained(
        base.name, revision=base.revision, dtype=_dtype(base.dtype), **quantization, **place
    ).eval()
    _keep_exact(model)
    return model


def load_adapted(base: BaseModelSpec, folder: str) -> Any:
    """Loads a base with the adapter in `folder` on it."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_plain(base), folder).eval()
    _keep_exact(model)
    return model


def _dtype(name: str) -> Any:
    return name if name == "auto" else getattr(torch, name)


def _keep_exact(model: Any) -> None:
    """Keeps 4-bit layers from bitsandbytes' bfloat16 kernel for AVX-512 CPUs, which it takes outside of training.

    It moves log-probabilities by 0.008 nats where rounding moves them by 1e-6, and would hide a fault of that size.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.train()
