"""Which card is simulated, and what has been counted on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from lowmem_rl.models.hardware import CARDS, Card

MULTIPROCESSORS = {
    "5060": 30,
    "4060": 24,
    "5070": 48,
    "4070": 46,
    "3060": 28,
    "2060-12": 34,
    "t4": 40,
    "a4000": 48,
    "l4": 58,
    "a10g": 80,
    "a5000": 64,
    "3090": 82,
    "4090": 128,
    "5090": 170,
    "a100-40": 108,
    "a40": 84,
    "a6000": 84,
    "h100": 132,
    "a100-80": 108,
    "gb10": 48,
    "h200": 132,
}
"""NVIDIA's data sheets: CUDA cores by the cores of a multiprocessor; the H100 is the SXM one."""
Wait = tuple[str, str, str]
"""What was waited for, the nearest line of lowmem_rl, and the nearest line of another library ("" for none)."""


@dataclass
class State:
    """The one card of this process."""

    card: Card = CARDS["a6000"]
    is_installed: bool = False
    counts_waits: bool = False
    waits: Counter[Wait] = field(default_factory=Counter)
    bytes_to_host: Counter[str] = field(default_factory=Counter)
    """Bytes of tensors and storages that were copied to the host while waits were counted, by line of lowmem_rl."""
    kernels: Counter[str] = field(default_factory=Counter)
    attention: Counter[str] = field(default_factory=Counter)
    allocations: int = 0
    allocated_bytes: int = 0
    peak_bytes: int = 0
    held_bytes: int = 0
    """What was held when the first training step began."""
    limit_bytes: int | None = None
    """Bytes above which an allocation fails; None for the card's own size."""
    allowed_bytes: int | None = None
    """What `set_per_process_memory_fraction` leaves to tensors; None for all."""
    fail_at: frozenset[int] = frozenset()
    """Numbers of the allocations that fail."""
    failures: list[list[str]] = field(default_factory=list)
    """The stack of each allocation that failed, innermost line last."""
    phantom_bytes: int | None = None
    """Size above which a tensor has no data; None if all have."""
    picked: int = 5
    """The token that argmax and the like choose from data that does not exist."""
    random_state: Any = None

    @property
    def capability(self) -> tuple[int, int]:
        return self.card.compute_capability

    def report(self) -> Report:
        """Returns what has been counted."""
        waits = [(*wait, count) for wait, count in self.waits.most_common()]
        return Report(
            waits,
            dict(self.bytes_to_host),
            dict(self.attention),
            dict(self.kernels),
            self.allocations,
            self.peak_bytes,
            self.held_bytes,
            list(self.failures),
        )


@dataclass(frozen=True)
class Report:
    """What a rehearsal has counted."""

    waits: list[tuple[str, str, str, int]] = field(default_factory=list)
    """What was waited for, our line, another library's line, how often."""
    bytes_to_host: dict[str, int] = field(default_factory=dict)
    """By line of ours."""
    attention: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    allocations: int = 0
    peak_bytes: int = 0
    """Since the first training step began, if one did."""
    held_bytes: int = 0
    failures: list[list[str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


STATE = State()
