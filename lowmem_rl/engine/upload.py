"""From host to GPU without waiting for the GPU.

A plain copy returns when the card has done all that was queued before it, and so does one from pageable memory; from
pinned memory it is queued itself (CUDA Runtime API, "API synchronization behavior"). torch keeps the pinned block until
the copy is done.
"""

import torch
from torch import Tensor


def upload(host: Tensor, device: torch.device) -> Tensor:
    """Returns a host tensor of any shape on the device."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
