"""TinyLoRA, over weights in 16 or 4 bit: B (v_1 P_1 + ... + v_u P_u) A next to a frozen weight; v alone learns.

B and A are the weight's first two singular vectors with the roots of their values, P fixed random matrices
(arXiv 2602.04118). PEFT 0.21 has three limits that are lifted here: it reads 4-bit weights as packed bytes, takes all
singular vectors of each weight to keep two, and mixes 16 bit with float32 outside of autocast. All of it but v are
buffers that are saved with the adapter: loading one does not depend on the seed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel, TinyLoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tinylora import TinyLoraModel
from peft.tuners.tinylora.layer import Linear
from peft.utils import PeftType
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

_SKETCH, _POWERS = 8, 16
"""Columns and power iterations of the randomised decomposition: what is left of others is below rounding."""


class _Layer(Linear):
    """PEFT's layer with matrices in float32, from a decomposition that computes only what is kept."""

    def _init_svd(self, adapter_name: str, r: int, fan_in_fan_out: bool) -> None:
        weight = self.get_base_layer().weight.detach().float()
        with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
            torch.manual_seed(0)
            left, values, right = torch.svd_lowrank(weight, q=min(_SKETCH, *weight.shape), niter=_POWERS)
        roots = values[:r].sqrt()
        self.tinylora_A[adapter_name] = (right[:, :r] * roots).T.contiguous()
        self.tinylora_B[adapter_name] = (left[:, :r] * roots).contiguous()
        self.r[adapter_name] = len(roots)


class _Model(TinyLoraModel):
    """PEFT's model of such layers, which sees the values of weights in 4 bit."""

    def _create_and_replace(self, config: Any, adapter_name: str, target: Any, *args: Any, **kwargs: Any) -> None:
        with _expanded(target):
            super()._create_and_replace(config, adapter_name, target, *args, **kwargs)

    @staticmethod
    def _create_new_module(config: Any, numbers: Any, key: str, name: str, target: Any, **kwargs: Any) -> _Layer:
        return _Layer(target, numbers, key, name, config, **kwargs)


@contextmanager
def _expanded(module: Any) -> Iterator[None]:
    stored = module.weight
    if stored.is_floating_point():
        yield
        return
    module.weight = nn.Parameter(dequantize_module_weight(module).detach(), requires_grad=False)
    try:
        yield
    finally:
        module.weight = stored


def add_tinylora(model: Any, arguments: Mapping[str, Any]) -> PeftModel:
    """Returns the model as a PeftModel in which the numbers of TinyLoRA learn, in float32; they start at 0.

    `arguments` are those of `peft.TinyLoraConfig`.
    """
    model.requires_grad_(False)
    PEFT_TYPE_TO_TUNER_MAPPING[PeftType.TINYLORA] = _Model
    found = get_peft_model(model, TinyLoraConfig(**arguments))
    for module in found.modules():
        if isinstance(module, _Layer):  # PEFT has moved them to the weight's type
            for buffers in (module.tinylora_A, module.tinylora_B, module.tinylora_P):
                buffers.float()
    return found


def factors_of(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """Returns a layer's inner matrix (2, in), and its outer one with the numbers that learn (out, 2), in float32."""
    numbers = module.tinylora_v[name][vars(module)["_tinylora_v_key"][name]]
    mixed = torch.einsum("i,ijk->jk", numbers, module.tinylora_P[name])
    return module.tinylora_A[name], module.tinylora_B[name] @ mixed
