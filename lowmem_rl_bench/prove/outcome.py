"""What a check returns if it holds."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check saw: a few words, figures, and the parts of the record that it fills."""

    result: str
    found: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)
    """`memory` or `step` of the measured preset."""
