"""What other libraries call by address or ask the driver: bitsandbytes, Unsloth, NVML, torch.compile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.rehearsal.card import attention, phantom
from tests.rehearsal.card.memory import CUDA, context_bytes
from tests.rehearsal.card.state import STATE

DRIVER_BYTES = 600 * 2**20
"""What the driver keeps for itself: NVML's total less CUDA's, of the order of an A6000's."""


def patch_bitsandbytes() -> None:
    """Makes paged memory host memory, as it is to torch; the rest of it goes through torch's operators."""
    import bitsandbytes.functional as F

    def get_paged(*shape: int, dtype: Any = torch.float32, device: Any = CUDA) -> torch.Tensor:
        out = torch.zeros(*shape, dtype=dtype)
        out.is_paged, out.page_deviceid = True, 0
        return out

    F.get_paged = get_paged
    F.fill = lambda tensor, value, device=None, prefetch=True: tensor.fill_(value)
    F.prefetch_tensor = lambda tensor, to_cpu=False: None


def patch_unsloth() -> None:
    """Computes Unsloth's kernels that are called by address (ctypes) with bitsandbytes' operators.

    The buffer that Unsloth shares between calls stays shared.
    """
    import unsloth.utils.prefix_grouper_kernel as prefix_grouper
    from unsloth.kernels import utils as kernels

    kernels._fast_dequantize_bnb, kernels._fast_gemv_bnb = fast_dequantize, fast_gemv
    prefix_grouper._run_flex = run_flex


def fast_dequantize(
    W: Any, quant_state: Any = None, out: Any = None, use_global_buffer: bool = False, dtype: Any = None
) -> Any:
    """unsloth/kernels/utils.py, fast_dequantize."""
    import bitsandbytes.functional as F
    from unsloth.kernels import utils as kernels

    if quant_state is None:
        return W
    STATE.kernels["fast_dequantize"] += 1
    transposed = W.shape[0] == 1
    if STATE.phantom_bytes is not None and phantom.is_large(W):
        found = _dequantized_unseen(quant_state, W.device, out, use_global_buffer)
        return found.t() if transposed else found
    with torch.inference_mode(torch.is_inference_mode_enabled()), torch.no_grad():
        found = F.dequantize_4bit(W.t() if transposed else W, quant_state)
        if out is None and use_global_buffer:
            out = kernels._scratch("weight", found.device, found.numel(), found.dtype).view(found.shape)
        if out is not None:
            assert out.shape == found.shape, "unsloth's buffer has another shape"
            assert out.dtype == found.dtype, "unsloth's buffer has another dtype"
            found = out.copy_(found)
    return found.t() if transposed else found


def _dequantized_unseen(state: Any, device: torch.device, out: Any, use_global_buffer: bool) -> Any:
    """Allocates what the Triton kernel does (unsloth/kernels/nf4.py): the weight, its constants in registers."""
    from unsloth.kernels import utils as kernels

    if out is None and use_global_buffer:
        return kernels._scratch("weight", device, state.shape.numel(), state.dtype).view(state.shape)
    return torch.empty(state.shape, dtype=state.dtype, device=device) if out is None else out


def fast_gemv(X: Any, W: Any, quant_state: Any, out: Any = None) -> Any:
    """unsloth/kernels/utils.py, fast_gemv: one row times a 4-bit matrix."""
    import bitsandbytes.functional as F

    STATE.kernels["fast_gemv"] += 1
    if quant_state is None:
        return torch.matmul(X, W, out=out)
    assert X.shape[0] == X.shape[1] == 1, "fast_gemv takes one row"
    found = X @ F.dequantize_4bit(W, quant_state).t()
    return found if out is None else out.copy_(found)


def run_flex(
    q: Any, k: Any, v: Any, block_mask: Any, enable_gqa: bool, scale: float, compiled: Any, T: int, T_pad: int
) -> Any:
    """FlexAttention by a dense mask: it is a higher-order operator, which no dispatch mode may see."""
    STATE.attention[f"flex, prefixes shared {str(q.dtype)[6:]}"] += 1
    at = torch.arange(T, device=q.device)
    keep = block_mask.mask_mod(0, 0, at[:, None], at[None, :])[None, None]
    attention.check(q, k, v, keep, causal=False, gqa=enable_gqa)
    return attention.fused(q, k, v, keep, causal=False, scale=scale)


class Silent:
    """A Triton kernel that does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: None


def patch_losses() -> None:
    """Lets unsloth_zoo's losses take a real card's way, with kernels that do nothing: for tensors without data.

    In Triton's interpreter they fall back to torch, which holds several copies of the logits.
    """
    import re
    from pathlib import Path

    import triton
    from unsloth_zoo.fused_losses import fused_linear

    fused_linear._HAS_TRITON, fused_linear.triton = True, triton
    fused_linear._use_triton = lambda device: device.type == "cuda"
    fused_linear._fp32_out_ok = lambda device, dtype=torch.float16: dtype is torch.float16 or STATE.card.has_bf16
    for name in re.findall(r"(_\w+_kernel)\b", Path(fused_linear.__file__).read_text()):
        setattr(fused_linear, name, Silent())


def patch_nvml() -> None:
    """Shows the card to `pynvml`."""
    import pynvml

    total = STATE.card.offered_bytes
    memory = SimpleNamespace(
        total=total + DRIVER_BYTES, reserved=DRIVER_BYTES, free=total - context_bytes(), used=context_bytes()
    )
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "card",
        "nvmlDeviceGetHandleByUUID": "card",
        "nvmlDeviceGetName": STATE.card.name,
        "nvmlDeviceGetCudaComputeCapability": STATE.capability,
        "nvmlSystemGetDriverVersion": "580.95.05 (simulated)",  # a record of it is not taken for a card's
        "nvmlDeviceGetMemoryInfo": memory,
    }
    for name, answer in answers.items():
        setattr(pynvml, name, lambda *args, answer=answer, **kwargs: answer)


def patch_compile() -> None:
    """Switches torch.compile off."""

    def compile(model: Any = None, **kwargs: Any) -> Any:
        return (lambda function: function) if model is None else model

    torch.compile = compile
