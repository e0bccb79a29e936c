"""DoRA's magnitudes: where they start, and what they make of a layer's outputs (arXiv 2402.09353).

A layer computes (m / |W + s B A|) (W + s B A) x + bias; the norm is of each row, one an output. PEFT's forward takes
that norm in its input's type, which is that of the model under CUDA's autocast and else the adapter's, float32. Rounded
to 16 bit it is not the norm in float32 that PEFT starts m from: by their quotient the adapted model would begin up to
2^-9 an output away from the base model, and the first KL not at 0. Here m starts from the norm that training takes.
"""

from typing import Any

import torch
from torch import Tensor

_ROWS = 256
"""Rows of a weight whose norm is found at once: 60 MB for 18,944 inputs."""


def reset_magnitudes(model: Any) -> None:
    """Sets every magnitude to the norm of its frozen weight's row, with which the layer computes as without adapter."""
    from peft.utils.integrations import dequantize_module_weight

    with torch.no_grad():
        for module in model.modules():
            for dora in getattr(module, "lora_magnitude_vector", {}).values():
                weight = dequantize_module_weight(module.get_base_layer()).to(model.get_input_embeddings().weight.dtype)
                dora.weight.copy_(_norm(weight, torch.zeros(1, device=weight.device)))


def gain(magnitude: Tensor, weight: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    """Returns what the outputs of a layer are multiplied with (out,), in float32: m / |weight + outer inner|.

    `weight` (out, in) is the frozen one in the model's type; the adapter's scale is in `outer` (out, rank).
    """
    parts = zip(weight.split(_ROWS), outer.split(_ROWS), strict=True)
    return magnitude.float() / torch.cat([_norm(rows, factor @ inner) for rows, factor in parts])


def _norm(weight: Tensor, added: Tensor) -> Tensor:
    """Returns the length of each row of the sum (out,), rounded as in training."""
    wide = weight if weight.is_cuda else weight.float()
    found: Tensor = torch.linalg.norm(wide + added.to(wide.dtype), dim=1)
    return found
