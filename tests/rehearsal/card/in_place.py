"""Operations that give a tensor another storage or size, and those that mean nothing here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.rehearsal.card import waits
from tests.rehearsal.card.memory import alias, on_storage, to_card

NOT_MINE = object()
"""Returned by a special operation that leaves its arguments to the dispatcher."""


def resize(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`aten::resize_` of a card tensor, which keeps what was there."""
    tensor, size = args[0], list(args[1])
    if not tensor.is_cuda:
        return NOT_MINE
    offset, numel = tensor.storage_offset(), math.prod(size)
    if (offset + numel) * tensor.element_size() > tensor.untyped_storage().nbytes():
        host, old = torch.empty(offset + numel, dtype=tensor.dtype), alias(tensor).flatten()
        host[: old.numel()] = old
        fresh = to_card(host[:numel].view(size))
    else:
        fresh = on_storage(tensor.untyped_storage(), alias(tensor).as_strided(size, _contiguous(size)))
    torch.Tensor.data.__set__(tensor, fresh)
    return tensor


def set_storage(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`aten::set_` of a tensor to a card storage."""
    storage = next((a for a in args if isinstance(a, torch.UntypedStorage | torch.storage.TypedStorage)), None)
    if storage is None or storage.device.type != "cuda":
        return NOT_MINE
    tensor, rest = args[0], args[2:]
    untyped = storage._untyped_storage if isinstance(storage, torch.storage.TypedStorage) else storage
    size = list(rest[1]) if len(rest) > 1 else [untyped.nbytes() // tensor.element_size()]
    metadata = {
        "dtype": tensor.dtype,
        "size": size,
        "stride": list(rest[2]) if len(rest) > 2 else _contiguous(size),
        "storage_offset": rest[0] if rest else 0,
    }
    torch.Tensor.data.__set__(tensor, torch._C._construct_CUDA_Tensor_From_Storage_And_Metadata(metadata, untyped))
    return tensor


def _contiguous(size: Sequence[int]) -> list[int]:
    return [math.prod(size[at + 1 :]) for at in range(len(size))]


Special = Callable[[tuple[Any, ...], dict[str, Any]], Any]
SPECIAL: dict[str, Special] = {
    "aten::resize_": resize,
    "aten::set_": set_storage,
    "aten::is_pinned": lambda args, kwargs: waits.is_pinned(args[0]),
    "aten::pin_memory": lambda args, kwargs: waits.pinned(args[0]),
    "aten::_pin_memory": lambda args, kwargs: waits.pinned(args[0]),
    "aten::record_stream": lambda args, kwargs: None,
}
"""Operations that no CPU kernel computes."""
