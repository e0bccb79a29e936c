"""A table as the page shows it."""

from dataclasses import dataclass

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageTable:
    """All rows are as long as the head; the note stands above it."""

    title: str
    note: str
    head: Cells
    rows: tuple[Cells, ...]
