"""What a rehearsal server is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.rehearsal.card.state import Report


@dataclass(frozen=True)
class Settings:
    """How a rehearsal runs. What counts or fails begins with the first training step."""

    fail_at: tuple[int, ...] = ()
    """Allocations that run out of memory, counted from 1."""
    counts_waits: bool = False
    limit_bytes: int | None = None
    """Bytes that tensors may take; None is the card's own size."""
    phantom_bytes: int | None = None
    """From the beginning, tensors above this size have no data (`card.phantom`)."""
    env: dict[str, str] = field(default_factory=dict)
    before: str = ""
    """`module:function`, called first: to change a setting of a library."""


@dataclass(frozen=True)
class Request:
    """A function to call, by `module:name`, with its arguments."""

    function: str
    args: tuple[Any, ...]
    settings: Settings
    cwd: str
    output: str
    """The file that takes what is printed, unless `files` are given."""
    files: tuple[int, ...] = ()
    """Open files that follow the request, by the numbers that they get (`ask`)."""


@dataclass(frozen=True)
class Answer:
    """What it returned, or the traceback that ended it, and what was counted on the card."""

    result: Any = None
    error: str = ""
    report: Report = field(default_factory=Report)
