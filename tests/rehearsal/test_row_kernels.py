"""The formulas of Unsloth's row kernels give what the kernels themselves do in Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.rehearsal.card.row_kernels import FORMULAS
from tests.rehearsal.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCES = {"float32": 1e-5, "float16": 4e-3}
"""Of the largest number; four units in float16's last place. NumPy, the interpreter's, has no bfloat16."""
BATCH, TOKENS, HEADS, KEY_HEADS, SIZE = 1, 4, 4, 2, 16
Results = dict[str, "list[Tensor]"]


def numbers(dtype: str, *shape: int) -> Tensor:
    """Returns normal numbers on the card, the same ones for a shape."""
    import torch

    host = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.randn(shape, generator=host).cuda().to(getattr(torch, dtype))


def by_head(dtype: str, heads: int) -> Tensor:
    """Returns what projections give attention: (batch, heads, tokens, size) over (batch, tokens, heads, size)."""
    return numbers(dtype, BATCH, TOKENS, heads, SIZE).transpose(1, 2)


def norms(dtype: str) -> Results:
    """The norm with its gradient, of a transposed input, its output kept for the gradient or not."""
    from unsloth.kernels.rms_layernorm import Fast_RMS_Layernorm

    found: Results = {}
    for keeps_output in (False, True):
        x = numbers(dtype, TOKENS, BATCH, SIZE).transpose(0, 1).requires_grad_()
        out = Fast_RMS_Layernorm.apply(x, numbers(dtype, SIZE), 1e-6, False, keeps_output)
        out.backward(numbers(dtype, BATCH, TOKENS, SIZE))
        found[f"norm, output kept: {keeps_output}"] = [out.detach(), x.grad]
    return found


def added_norms(dtype: str) -> Results:
    """The norm of a sampled token's sum; its kernel writes into both."""
    from unsloth.kernels.fused_add_rms_layernorm import fast_add_rms_layernorm_inference

    found: Results = {}
    for adds in (False, True):
        x, residual = numbers(dtype, TOKENS, 1, SIZE), numbers(dtype, TOKENS, SIZE, 1).transpose(1, 2).contiguous()
        out = fast_add_rms_layernorm_inference(x, residual, numbers(dtype, SIZE), 1e-6, adds)
        found[f"norm of a sum: {adds}"] = [out, residual]
    return found


def rotations(dtype: str) -> Results:
    """Rotary embeddings and their gradients: by place, by given positions, of one tensor; strided and in place."""
    import torch
    from unsloth.kernels import rope_embedding

    cos, sin = numbers(dtype, 8, SIZE), numbers(dtype, SIZE, 8).t().contiguous()
    positions = torch.tensor([[1, 3, 0, 7]], dtype=torch.int32, device="cuda")
    by_place, by_position = rope_embedding.Fast_RoPE_Embedding_QK_Positions, rope_embedding.Fast_RoPE_Embedding_QK
    kinds: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {
        "by place": lambda q, k: by_place.apply(q, k, cos, sin),
        "by position": lambda q, k: by_position.apply(q, k, cos, sin, positions),
        "of one": lambda q, k: (rope_embedding.Fast_RoPE_Embedding.apply(q.transpose(1, 2), cos, sin),),
    }
    found: Results = {}
    for name, rotate in kinds.items():
        for is_contiguous in (False, True):
            q, k = (by_head(dtype, heads).requires_grad_() for heads in (HEADS, KEY_HEADS))
            given = [tensor.contiguous() if is_contiguous else tensor * 1 for tensor in (q, k)]
            outs = rotate(*given)
            torch.autograd.backward(outs, [out.detach().clone() for out in outs])
            grads = [tensor.grad for tensor in (q, k) if tensor.grad is not None]
            found[f"rotation {name}, contiguous: {is_contiguous}"] = [*(out.detach() for out in outs), *grads]
    return found


def gates(dtype: str) -> Results:
    """SwiGLU, and the gradients that its kernel writes over its arguments."""
    from unsloth.kernels.swiglu import swiglu_DWf_DW_dfg_kernel, swiglu_fg_kernel

    e, g, grad = (numbers(dtype, *shape) for shape in ((BATCH, TOKENS, SIZE), (BATCH, TOKENS * SIZE), (TOKENS, SIZE)))
    forward = swiglu_fg_kernel(e, g.view_as(e))
    back = swiglu_DWf_DW_dfg_kernel(grad, e.view(-1, SIZE), g.view(-1, SIZE))
    return {"gate": [forward], "gate's gradients": list(back)}


def computed(dtype: str, *, interprets: bool) -> Results:
    """Returns the results of all kernels on the host."""
    os.environ["REHEARSE_INTERPRET"] = str(int(interprets))
    found = {
        name: tensors
        for function in (norms, added_norms, rotations, gates)
        for name, tensors in function(dtype).items()
    }
    return {name: [tensor.cpu().float() for tensor in tensors] for name, tensors in found.items()}


def differences(dtype: str) -> tuple[dict[str, float], dict[str, int]]:
    """Returns the largest difference of each result by its largest number, and how often each kernel ran."""
    from tests.rehearsal.card.state import STATE

    formulas, kernels = (computed(dtype, interprets=interprets) for interprets in (False, True))
    found = {
        f"{name}, result {at}": ((ours - theirs).abs().max() / theirs.abs().max()).item()
        for name, tensors in kernels.items()
        for at, (ours, theirs) in enumerate(zip(formulas[name], tensors, strict=True))
    }
    return found, dict(STATE.kernels)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_formulas_are_the_kernels(a6000: Stage, dtype: str) -> None:
    found, ran = a6000.call(differences, dtype)
    assert {name: value for name, value in found.items() if not value <= TOLERANCES[dtype]} == {}
    assert {name: ran.get(name, 0) % 2 for name in FORMULAS} == dict.fromkeys(FORMULAS, 0)
    assert all(ran.get(name, 0) >= 2 for name in FORMULAS), ran
