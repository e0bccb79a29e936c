"""Memory that a composite kernel holds while it runs, which neither the CPU's kernels nor shape functions show.

`sort` and `topk` hold some, too, by rules of their own: it is not seen.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.rehearsal.card.in_place import NOT_MINE, SPECIAL
from tests.rehearsal.card.memory import card_storage, phantom_storage
from tests.rehearsal.card.state import STATE


def as_large_as_its_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Counts a block that is gone when its operation has run, and leaves the operation to the dispatcher."""
    tensor = args[0]
    if tensor.is_cuda:
        _come_and_go(tensor.numel() * tensor.element_size())
    return NOT_MINE


def as_its_input_in_another_type(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Counts the input's copy in the type of the sums, next to the sums, in a block that is soon gone."""
    tensor, dtype = args[0], kwargs.get("dtype")
    if tensor.is_cuda and dtype not in (None, tensor.dtype):
        _come_and_go(2 * tensor.numel() * dtype.itemsize)
    return NOT_MINE


def _come_and_go(nbytes: int) -> None:
    if nbytes:
        card_storage(torch.UntypedStorage(nbytes)) if STATE.phantom_bytes is None else phantom_storage(nbytes)


def patch() -> None:
    """Counts what is held by logsumexp, cumsum (both ATen/native/ReduceOps.cpp) and multinomial
    (ATen/native/Distributions.cpp)."""
    for name in ("aten::logsumexp", "aten::multinomial"):
        SPECIAL[name] = as_large_as_its_input
    SPECIAL["aten::cumsum"] = as_its_input_in_another_type
