"""Scaled dot product attention and the varlen flash kernel, with the memory that fused kernels take.

The formulas: softmax(q k^T / sqrt(d)) v in float32, its gradient by recomputation (FlashAttention, arXiv 2205.14135).
A kernel holds its output and a float32 number a row and head; the squares of scores exist on the host alone, those of
the math kernel, too, whose bytes are not counted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from tests.rehearsal.card import phantom
from tests.rehearsal.card.checks import mixed
from tests.rehearsal.card.in_place import NOT_MINE, SPECIAL
from tests.rehearsal.card.memory import alias, to_card
from tests.rehearsal.card.state import STATE

HALVES = (torch.float16, torch.bfloat16)
EFFICIENT, MATH = "efficient", "math"
PADDED = "efficient, mask padded in each call"
CONVERTED = "efficient, boolean mask converted in each call"
CONVERTED_AND_PADDED = "efficient, boolean mask converted and padded in each call"


def is_aligned(mask: Tensor) -> bool:
    """Returns whether the efficient kernel reads a mask directly (native/transformers/attention.cpp, torch 2.14)."""
    return mask.stride(-1) == 1 and all(stride % 8 == 0 for stride in mask.stride()[:-1])


def backend_of(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, gqa: bool) -> str:
    """Names the kernel that the card's torch takes, by torch 2.14's rules (ATen/native/transformers/cuda/sdp_utils)."""
    capability, half = STATE.capability, q.dtype in HALVES
    if _is_unfused(q, k, v, mask):
        return MATH
    if half and mask is None and capability >= (8, 0) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0:
        return "cudnn or flash" if capability[0] in (9, 10) else "flash"
    if half and capability[0] in (9, 10):
        return "cudnn (a plan for each new length)"
    if q.shape[-1] % (8 if half else 4):
        return MATH
    kind = _efficient(mask)
    return "efficient with gqa (torch 2.14), else math" if gqa and kind == EFFICIENT else kind


def _is_unfused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """check_tensor_shapes, check_last_dim_stride_equals_1_dense and the kernels' dtypes; bfloat16 begins with 8.0."""
    tensors = (q, k, v) if mask is None else (q, k, v, mask)
    has_dtype = q.dtype in (torch.float16, torch.float32) or (q.dtype == torch.bfloat16 and STATE.card.has_bf16)
    return not has_dtype or q.dim() != 4 or any(tensor.stride(-1) != 1 for tensor in tensors)


def _efficient(mask: Tensor | None) -> str:
    """A boolean mask becomes a new additive one, whose rows are as long as they are (convert_boolean_attn_mask)."""
    if mask is None:
        return EFFICIENT
    if mask.dtype == torch.bool:
        return CONVERTED if mask.shape[-1] % 8 == 0 else CONVERTED_AND_PADDED
    return EFFICIENT if is_aligned(mask) else PADDED


def scores_of(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """Returns masked scores (..., queries, keys) in float32."""
    scores = (q.float() @ k.float().transpose(-1, -2)) * scale
    if causal:
        return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.float()


def weights_of(scores: Tensor) -> Tensor:
    """Returns the softmax; a row that sees nothing, as the padding of a shorter prompt, has zeros.

    So torch's kernels have it since 2.5 (`_safe_softmax`), on which transformers' masks rest.
    """
    return scores.softmax(-1).masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)


def repeated(tensor: Tensor, times: int) -> Tensor:
    """Repeats each key's head for the queries that share it: (..., heads, tokens, size)."""
    if times == 1:
        return tensor
    wide = tensor.unsqueeze(-3)
    return wide.expand(*wide.shape[:-3], times, *wide.shape[-2:]).flatten(-4, -3)


def summed(tensor: Tensor, times: int) -> Tensor:
    """Adds up the gradients of repeated heads."""
    return tensor if times == 1 else tensor.unflatten(-3, (-1, times)).sum(-3)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Returns attention's output in float32, and each row's log of summed exponents."""
    times = q.shape[-3] // k.shape[-3]
    scores = scores_of(q, repeated(k, times), mask, causal, scale)
    return weights_of(scores) @ repeated(v, times).float(), scores.logsumexp(-1)


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of queries, keys and values in float32."""
    times = q.shape[-3] // k.shape[-3]
    wide_k, wide_v, grad = repeated(k, times).float(), repeated(v, times).float(), grad.float()
    weights = weights_of(scores_of(q, wide_k, mask, causal, scale))
    inner = grad @ wide_v.transpose(-1, -2)
    of_scores = weights * (inner - (inner * weights).sum(-1, keepdim=True)) * scale
    return (
        of_scores @ wide_k,
        summed(of_scores.transpose(-1, -2) @ q.float(), times),
        summed(weights.transpose(-1, -2) @ grad, times),
    )


@contextlib.contextmanager
def on_the_host() -> Iterator[None]:
    """Computes on aliases: nothing of it is allocated on the card."""
    with _disable_current_modes(), torch.inference_mode(False), torch.no_grad():
        yield


class FusedAttention(torch.autograd.Function):
    """A fused kernel; its output is (..., heads, tokens, size) over memory in the order (..., tokens, heads, size)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
        heads, tokens = q.shape[-3:-1]
        out = q.new_empty(*q.shape[:-3], tokens, heads, v.shape[-1]).transpose(-2, -3)
        sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, mask, out, sums)
        ctx.causal, ctx.scale = causal, scale
        if not (phantom.is_large(q) or phantom.is_large(k)) or STATE.phantom_bytes is None:
            with on_the_host():
                found, logs = attend(*map(alias, (q, k, v)), None if mask is None else alias(mask), causal, scale)
                alias(out).copy_(found)
                alias(sums).copy_(logs)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, mask, _, _ = ctx.saved_tensors
        found = [torch.empty_like(tensor) for tensor in (q, k, v)]
        if not (phantom.is_large(q) or phantom.is_large(k)) or STATE.phantom_bytes is None:
            with on_the_host():
                low = None if mask is None else alias(mask)
                for whole, part in zip(
                    found, attend_backward(*map(alias, (grad, q, k, v)), low, ctx.causal, ctx.scale), strict=True
                ):
                    alias(whole).copy_(part)
        return *found, None, None, None


def check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, gqa: bool) -> None:
    """Raises what CUDA's kernels raise for dtypes, devices and heads that do not go together."""
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError(
            f"Expected query, key, and value to have the same dtype, but got query.dtype: {q.dtype} "
            f"key.dtype: {k.dtype} and value.dtype: {v.dtype} instead."
        )
    if not (k.is_cuda and v.is_cuda):
        raise RuntimeError(
            "Expected query, key, and value to have the same device type, but got query.device: "
            f"{q.device} key.device: {k.device} and value.device: {v.device} instead."
        )
    if q.shape[-3] != k.shape[-3] and not gqa:
        raise RuntimeError(f"heads {q.shape[-3]} and {k.shape[-3]} differ without enable_gqa")
    if mask is None:
        return
    if causal:
        raise RuntimeError("Explicit attn_mask should not be set when is_causal=True")
    if not mask.is_cuda:
        raise mixed("scaled_dot_product_attention", "the mask")
    if mask.dtype not in (torch.bool, q.dtype):  # float32 with 16 bit passes torch's check, not the kernel's
        raise RuntimeError(f"invalid dtype for bias: attn_mask is {mask.dtype}, query {q.dtype}")


def autocast(tensor: Tensor) -> Tensor:
    """Returns a tensor in the dtype of `autocast("cuda")`, which attention is called in (ATen/autocast_mode.h)."""
    if not torch.is_autocast_enabled("cuda") or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype("cuda")) if tensor.is_cuda else tensor


def read_by(kind: str, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the mask that the kernel reads, with the copies that torch makes of it."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask.logical_not(), -math.inf, torch.zeros((), dtype=dtype, device=mask.device))
    if kind in (PADDED, CONVERTED_AND_PADDED):
        width = mask.shape[-1]
        mask = torch.nn.functional.pad(mask, (0, 8 - width % 8))[..., :width]
    return mask


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """Returns attention as one kernel computes it."""
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    return FusedAttention.apply(q, k, v, mask, causal, factor)


def patch() -> None:
    """Replaces torch's attention for card tensors."""
    plain = torch.nn.functional.scaled_dot_product_attention

    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not query.is_cuda:
            return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if dropout_p:
            raise NotImplementedError("dropout in attention is not simulated")
        query, key, value = map(autocast, (query, key, value))
        mask = None if attn_mask is None else autocast(attn_mask)
        check(query, key, value, mask, is_causal, enable_gqa)
        kind = backend_of(query, key, value, mask, gqa=query.shape[-3] != key.shape[-3])
        STATE.attention[f"{kind} {str(query.dtype)[6:]} grad={query.requires_grad and torch.is_grad_enabled()}"] += 1
        return fused(query, key, value, None if mask is None else read_by(kind, mask, query.dtype), is_causal, scale)

    scaled_dot_product_attention.__doc__ = plain.__doc__
    torch.nn.functional.scaled_dot_product_attention = scaled_dot_product_attention
    torch._C._nn.scaled_dot_product_attention = scaled_dot_product_attention
    torch._fused_sdp_choice = choice
    SPECIAL["aten::_flash_attention_forward"] = flash_forward
    SPECIAL["aten::_flash_attention_backward"] = flash_backward


def choice(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> int:
    """Replaces torch's question which kernel it would take: 1 is flash, 2 the memory-efficient one."""
    return 1 if attn_mask is None and STATE.capability >= (8, 0) else 2


def flash_forward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch's varlen flash kernel over (tokens, heads, size), segments by cumulated lengths."""
    query, key, value, lengths, *_ = args
    if not query.is_cuda:
        return NOT_MINE
    STATE.attention[f"flash varlen {str(query.dtype)[6:]}"] += 1
    if query.dtype not in HALVES or STATE.capability < (8, 0):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer and 16-bit types (simulated)")
    rest = (
        to_card(torch.zeros((query.shape[1], query.shape[0]))),
        to_card(torch.zeros(2, dtype=torch.int64)),
        to_card(torch.zeros((), dtype=torch.int64)),
    )
    empty = to_card(torch.empty(0))
    if STATE.phantom_bytes is not None and phantom.is_large(query):
        return phantom.unseen(query), *rest, empty
    q, k, v, cuts = map(alias, (query, key, value, lengths))
    out = torch.empty_like(q)
    for part in _segments(cuts):
        found, _ = attend(*(t[part].transpose(0, 1) for t in (q, k, v)), None, args[8], _scale(q, kwargs))
        out[part] = found.transpose(0, 1)
    return to_card(out), *rest, empty


def flash_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Its gradients."""
    grad, query, key, value, _, _, lengths = args[:7]
    if not query.is_cuda:
        return NOT_MINE
    if STATE.phantom_bytes is not None and phantom.is_large(query):
        return tuple(map(phantom.unseen, (query, key, value)))
    g, q, k, v, cuts = map(alias, (grad, query, key, value, lengths))
    found = [torch.zeros_like(tensor) for tensor in (q, k, v)]
    for part in _segments(cuts):
        low = (tensor[part].transpose(0, 1) for tensor in (g, q, k, v))
        for whole, piece in zip(found, attend_backward(*low, None, args[11], _scale(q, kwargs)), strict=True):
            whole[part] = piece.transpose(0, 1)
    return tuple(map(to_card, found))


def _segments(cuts: Tensor) -> Iterator[slice]:
    ends = cuts.tolist()
    return (slice(start, end) for start, end in pairwise(ends) if end > start)


def _scale(q: Tensor, kwargs: dict[str, Any]) -> float:
    return kwargs.get("scale") or 1.0 / math.sqrt(q.shape[-1])
