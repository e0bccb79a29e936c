"""Which operations make the host wait for the card, by the line that asks for them."""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.rehearsal.card.state import STATE

BLOCKING = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "item",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "unique_dim",
        "_unique2",
        "unique_consecutive",
        "bincount",
        "repeat_interleave",
    )
)
"""Their result, or its size, is decided on the card. `repeat_interleave` arrives here without an output size only."""
INDEXING = frozenset(
    f"aten::{name}" for name in ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")
)
TO_HOST, TO_CARD = "copy to the host", "copy to the card"


def note(kind: str) -> None:
    """Counts a wait."""
    if STATE.counts_waits:
        STATE.waits[kind, *_lines()] += 1


def note_operation(name: str, args: tuple[Any, ...]) -> None:
    """Counts an operation on the card if it waits."""
    if name in BLOCKING:
        note(name)
    elif name in INDEXING and any(_is_mask(index) for index in args[1]):
        note(f"{name} by a mask")  # its number of ones is the result's size
    elif name == "aten::copy_" and args[0].is_cuda != args[1].is_cuda:
        note_copy(args[1], to_card=args[0].is_cuda, non_blocking=len(args) > 2 and bool(args[2]))


def note_copy(source: torch.Tensor, *, to_card: bool, non_blocking: bool) -> None:
    """Counts a copy between host and card; one from pinned memory may be queued (CUDA Runtime API, synchronization)."""
    if not (to_card and non_blocking and is_pinned(source)):
        note(TO_CARD if to_card else TO_HOST)


def pinned(host: torch.Tensor) -> torch.Tensor:
    """Returns a copy that counts as one in pinned memory."""
    found = host.clone()
    found.lies_in_pinned_memory = True  # type: ignore[attr-defined]
    return found


def is_pinned(tensor: torch.Tensor) -> bool:
    """Says whether it is such a copy; a part of one is not known here."""
    return getattr(tensor, "lies_in_pinned_memory", False)


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _lines() -> tuple[str, str]:
    """Returns the nearest line of lowmem_rl, and the nearest one outside of it and of torch."""
    ours = other = ""
    frame: Any = sys._getframe(2)
    while frame is not None and not ours:
        name = frame.f_code.co_filename
        if "/lowmem_rl/" in name:
            ours = f"{name.rpartition('/lowmem_rl/')[2]}:{frame.f_lineno}"
        elif not other and "/torch/" not in name and "/rehearsal/" not in name:
            other = f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}"
        frame = frame.f_back
    return ours, other
