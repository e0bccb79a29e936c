"""Which operations make the host wait for the card, by the line that asks for them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
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
MOVES = frozenset({"aten::_to_copy", "aten::to"})
TO_HOST, TO_CARD = "copy to the host", "copy to the card"


def note(kind: str) -> None:
    """Counts a wait."""
    if STATE.counts_waits:
        STATE.waits[kind, *_lines()] += 1


def note_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Counts an operation if it waits."""
    if name in BLOCKING:
        if args[0].is_cuda:
            note(name)
    elif name in INDEXING:
        _note_indexing(name, args)
    elif name == "aten::copy_":
        note_copy(args[1], args[0].device, non_blocking=len(args) > 2 and bool(args[2]))
    elif name in MOVES:
        asked = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)), None)
        note_copy(args[0], asked or args[0].device, non_blocking=bool(kwargs.get("non_blocking")))
    elif name == "aten::histc" and args[0].is_cuda and _finds_range(args):
        note(name)


def _note_indexing(name: str, args: tuple[Any, ...]) -> None:
    if not args[0].is_cuda:
        return
    for index in args[1]:
        if isinstance(index, torch.Tensor) and not index.is_cuda:
            note(TO_CARD)
    if any(is_mask(index) and index.is_cuda for index in args[1]):
        note(f"{name} by a mask")  # its number of ones is the result's size


def _finds_range(args: tuple[Any, ...]) -> bool:
    """Returns whether a histogram's range is the data's, which the host reads (ATen/native/cuda/SummaryOps.cu)."""
    return len(args) < 4 or args[2] == args[3]


def note_copy(source: torch.Tensor, target: torch.device, *, non_blocking: bool = False) -> None:
    """Counts a copy between host and card; one from pinned memory may be queued (CUDA Runtime API, synchronization)."""
    to_card = target.type == "cuda"
    if source.is_cuda == to_card or target.type == "meta":
        return
    if not to_card:
        note_bytes(source.numel() * source.element_size())
    elif not (non_blocking and is_pinned(source)):
        note(TO_CARD)


def note_bytes(nbytes: int) -> None:
    """Counts a copy of so many bytes to the host, which waits."""
    if STATE.counts_waits:
        note(TO_HOST)
        STATE.bytes_to_host[_lines()[0]] += nbytes


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """Counts no waits inside of it."""
    counts, STATE.counts_waits = STATE.counts_waits, False
    try:
        yield
    finally:
        STATE.counts_waits = counts


def pinned(host: torch.Tensor) -> torch.Tensor:
    """Returns a copy that counts as one in pinned memory."""
    found = host.clone()
    found.is_in_pinned_memory = True  # type: ignore[attr-defined]
    return found


def is_pinned(tensor: torch.Tensor) -> bool:
    """Returns whether it is such a copy; a part of one is not known here."""
    return getattr(tensor, "is_in_pinned_memory", False)


def is_mask(index: Any) -> bool:
    """Returns whether an index chooses by ones and zeros."""
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
