"""Which blocks lived when the card's memory was fullest, and which lines allocated them.

    live_blocks.begin()           # in the child, before what is looked at
    ...
    live_blocks.at_peak()         # [(bytes, how many of one size, "operation line < its caller < ..."), ...]

Begins again whenever the peak is reset, as PyTorch's `reset_peak_memory_stats` does.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NAMED_FROM = 2**16
"""Bytes below which a block's line is not looked up."""
LINES = 4
Origin = tuple[int, str]
"""Bytes of a block, and what allocated it."""


@dataclass
class Log:
    """What was allocated and freed since the peak was reset."""

    is_on: bool = False
    live: dict[int, Origin] = field(default_factory=dict)
    at_reset: dict[int, Origin] = field(default_factory=dict)
    events: list[tuple[int, Origin | None]] = field(default_factory=list)
    """A block's number and description; None when it is freed."""
    peak_at: int = 0
    """Events until the peak."""


LOG = Log()


def begin() -> None:
    """Notes blocks from now on."""
    LOG.is_on = True


def reset() -> None:
    """Begins a new peak."""
    LOG.at_reset, LOG.events, LOG.peak_at = dict(LOG.live), [], 0


def note(number: int, nbytes: int) -> None:
    """Notes a new block."""
    if LOG.is_on:
        LOG.live[number] = origin = nbytes, _lines() if nbytes >= NAMED_FROM else "small"
        LOG.events.append((number, origin))


def forget(number: int) -> None:
    """Notes that a block is gone."""
    if LOG.is_on and LOG.live.pop(number, None):
        LOG.events.append((number, None))


def mark_peak() -> None:
    """Notes that there was never more since the reset."""
    LOG.peak_at = len(LOG.events)


def at_peak() -> list[tuple[int, int, str]]:
    """Returns bytes, number and origin of the blocks that lived at the peak, equal ones merged, the largest first."""
    live = dict(LOG.at_reset)
    for number, origin in LOG.events[: LOG.peak_at]:
        if origin is None:
            live.pop(number, None)
        else:
            live[number] = origin
    counts = Counter(live.values())
    return sorted(((nbytes * count, count, lines) for (nbytes, lines), count in counts.items()), reverse=True)


def _lines() -> str:
    """Returns the operation and the nearest lines outside of torch."""
    operation, lines = "", []
    frame: Any = sys._getframe(2)
    while frame is not None and len(lines) < LINES:
        name, known = frame.f_code.co_filename, frame.f_locals
        if "/rehearsal/card/" in name:
            if not operation and frame.f_code.co_name == "execute" and "func" in known:
                operation = known["func"]._schema.name.removeprefix("aten::")
        elif "/torch/" not in name:
            lines.append(f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join([f"{operation} {lines[0] if lines else ''}".strip(), *lines[1:]])
