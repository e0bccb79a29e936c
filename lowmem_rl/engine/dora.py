"""DoRA's magnitudes: where they start, and what they make of a layer's outputs (arXiv 2402.09353).

A layer computes (m / |W + s B A|) (W + s B A) x + bias; the norm is of each row, one an output. PEFT's forward takes
that norm in its input's type and so rounds it in 16 bit, but starts m from the norm in float32: by their quotient the
adapted model would begin up to 2^-9 an output away from the base model, and the first KL not at 0. Here m starts from
the norm that the forward takes.
"""

from typing import Any

import torch
from torch import Tensor


def reset_magnitudes(model: Any) -> None:
    """Sets every magnitude to the norm of its frozen weight's row, in the type in which the model computes."""
    from peft.utils.integrations import dequantize_module_weight

    with torch.no_grad():
        for module in model.modules():
            for dora in getattr(module, "lora_magnitude_vector", {}).values():
                weight = dequantize_module_weight(module.get_base_layer()).to(model.get_input_embeddings().weight.dtype)
                dora.weight.copy_(torch.linalg.norm(weight, dim=1))


def gain(magnitude: Tensor, weight: Tensor, added: Tensor) -> Tensor:
    """Returns what the outputs of a layer are multiplied with (out,), in float32: m / |weight + added|.

    `weight` (out, in) is the frozen one, in whose type the norm is rounded; `added` is the adapter's product.
    """
    return magnitude.float() / torch.linalg.norm(weight + added.to(weight.dtype), dim=1)
