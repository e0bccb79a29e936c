"""Unsloth's row kernels over whole tensors: Triton's interpreter takes a millisecond a program, one a row.

The formulas of unsloth 2026.10.9, kernels/{rms_layernorm,rope_embedding,swiglu}.py, with their roundings. Arguments
are the host's aliases of the card's tensors. `REHEARSE_INTERPRET=1` lets the interpreter run the kernels themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def rms_forward(Y: Tensor, X: Tensor, W: Tensor, r: Tensor, eps: float, **_: Any) -> None:
    """_rms_layernorm_forward."""
    x = X.float()
    inverse = torch.rsqrt(x.pow(2).mean(-1) + eps)
    r.copy_(inverse)
    Y.copy_((x * inverse[:, None]).to(W.dtype) * W)


def rms_backward(
    dY: Tensor,
    dX: Tensor,
    X: Tensor,
    W: Tensor,
    r: Tensor,
    dW: Tensor,
    rows_per_program: int,
    GEMMA: bool,
    TRAIN_W: bool,
    FROM_Y: bool,
    n_cols: int,
    **_: Any,
) -> None:
    """_rms_layernorm_backward."""
    assert not GEMMA, "not simulated"
    dy, x, w, inverse = dY.float(), X.float(), W.float(), r.float()[:, None]
    normed = x / w if FROM_Y else x * inverse
    if TRAIN_W:  # one sum a program; before the first write, dX may be dY
        rows = (dy * normed.to(W.dtype).float()).split(rows_per_program)
        dW.copy_(torch.stack([some.sum(0) for some in rows]))
    dyw = dy * w
    dX.copy_(inverse / n_cols * (n_cols * dyw - normed * (dyw * normed).sum(-1, keepdim=True)))


def add_rms(X: Tensor, R: Tensor, W: Tensor, n_cols: int, eps: float, HAS_RESIDUAL: bool, **_: Any) -> None:
    """_add_rms_layernorm_inference."""
    x, residual = X.view(-1, n_cols), R.view(-1, n_cols)
    h = (x.float() + residual.float()).to(x.dtype) if HAS_RESIDUAL else x
    residual.copy_(h)
    wide = h.float()
    normed = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
    x.copy_(normed.float() * W.float())


def rope(
    Q: Tensor,
    Q_out: Tensor,
    K: Tensor,
    K_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    rope_embedding_indices: Tensor,
    seqlen: int,
    n_heads_K: int,
    half_head_dim: int,
    BACKWARD_PASS: bool,
    HAS_ROPE_INDICES: bool,
    CAST_TO_SIN: bool,
    **_: Any,
) -> None:
    """_rope_embedding_QK."""
    batch = Q.shape[0]
    if HAS_ROPE_INDICES:
        at = rope_embedding_indices.view(-1)[: batch * seqlen].long().view(batch, seqlen)
    else:
        at = torch.arange(seqlen).expand(batch, seqlen)
    c, s = cos[at][:, None, :, :half_head_dim], sin[at][:, None, :, :half_head_dim]
    s = -s if BACKWARD_PASS else s
    for x, out in ((Q, Q_out), (K, K_out)) if n_heads_K else ((Q, Q_out),):
        kind = s.dtype if CAST_TO_SIN else torch.float32
        a, b = x[..., :half_head_dim].to(kind), x[..., half_head_dim : 2 * half_head_dim].to(kind)
        low, high = a * c - b * s, b * c + a * s
        out[..., :half_head_dim].copy_(low)
        out[..., half_head_dim : 2 * half_head_dim].copy_(high)


def swiglu(e: Tensor, g: Tensor, h: Tensor, n_elements: int, **_: Any) -> None:
    """_fg_kernel."""
    e, g, h = (tensor.reshape(-1) if tensor.is_contiguous() else tensor.view(-1) for tensor in (e, g, h))
    wide = e.float()
    h.copy_((wide * wide.sigmoid()).to(g.dtype) * g)


def swiglu_backward(DW: Tensor, e: Tensor, g: Tensor, n_elements: int, **_: Any) -> None:
    """_DWf_DW_dfg_kernel."""
    DW, e, g = DW.view(-1), e.view(-1), g.view(-1)
    wide, s = e.float(), e.float().sigmoid()
    f = (s * wide).to(DW.dtype)
    of_gate = ((DW * g).float() * s * (1 + wide * (1 - s))).to(DW.dtype)
    gated, of_input = f * g, DW * f  # all of them before the first write: in float32 `wide` is `e` itself
    DW.copy_(gated)
    e.copy_(of_input)
    g.copy_(of_gate)


FORMULAS: dict[str, Callable[..., None]] = {
    "_rms_layernorm_forward": rms_forward,
    "_rms_layernorm_backward": rms_backward,
    "_add_rms_layernorm_inference": add_rms,
    "_rope_embedding_QK": rope,
    "_fg_kernel": swiglu,
    "_DWf_DW_dfg_kernel": swiglu_backward,
}
"""By the name of the Triton kernel."""
