"""A table of a page."""

from dataclasses import dataclass

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageTable:
    """All rows are as long as the head; the note is above it."""

    title: str
    note: str
    head: Cells
    rows: tuple[Cells, ...]
