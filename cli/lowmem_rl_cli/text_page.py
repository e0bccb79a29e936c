"""A page of plain text: as wide as the terminal, in colour if it shows them, with tables, bars and folded lines.

Not with rich: its import alone takes a fifth of the time in which `profile` answers.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from types import MappingProxyType

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
"""SGR codes that are readable on dark and light backgrounds."""
_BLOCKS = ("█", "░", "│")
_NARROWEST, _WIDEST, _PIPED = 40, 120, 100
INDENT, _GAP = "  ", "  "
NARROWEST_CELL = 16
"""Columns below which text is not folded in a column of its own."""


@dataclass(frozen=True, slots=True)
class TextPage:
    """What a page has to print on."""

    columns: int = _PIPED
    colours: bool = False
    blocks: bool = True
    """The encoding has block characters."""

    @property
    def glyphs(self) -> tuple[str, str, str]:
        """The characters of bars: expected, upper, edge."""
        return _BLOCKS if self.blocks else ("#", "-", "|")

    def ink(self, text: str, *codes: str) -> str:
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and text and codes else text

    def heading(self, title: str, remark: str = "") -> Iterator[str]:
        """Yields an empty line, then a title with a remark after it, or below it if there is no room."""
        yield ""
        start = len(title + _GAP)
        if self.columns - start < NARROWEST_CELL:
            yield from self.fold(title, "", INDENT, BOLD)
            yield from self.fold(remark, INDENT, "", DIM)
            return
        first, *rest = wrap(remark, self.columns - start) or [""]
        yield (self.ink(title, BOLD) + _GAP + self.ink(first, DIM)).rstrip()
        yield from (self.ink(" " * start + line, DIM) for line in rest)

    def fold(self, text: str, indent: str = INDENT, hang: str = "", *codes: str) -> Iterator[str]:
        """Yields a paragraph; lines after the first are indented by `hang` more."""
        lines = wrap(text, self.columns, initial_indent=indent, subsequent_indent=indent + hang, break_on_hyphens=False)
        yield from (self.ink(line, *codes) for line in lines)

    def table(
        self,
        rows: Sequence[Sequence[str]],
        align: str = "",
        head: Sequence[str] = (),
        bold: int | None = None,
        inks: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[str]:
        """Yields aligned rows; a long last cell is folded in its column.

        `align` has "l" or "r" for each column; by default columns of digits are aligned to the right. Cells whose text
        is in `inks` have that colour. On a page too narrow for the columns each row becomes a paragraph.
        """
        lines, sizes, align = _measure(rows, align, head)
        start = len(INDENT) + sum(sizes[:-1]) + len(_GAP) * (len(sizes) - 1)
        room = self.columns - start
        if min(sizes[-1], NARROWEST_CELL) > room:
            yield from self._paragraphs(rows, head, bold)
            return
        for number, row in enumerate(lines, start=-1 if head else 0):
            codes = [DIM] if number < 0 else [BOLD] if number == bold else []
            *cells, last = (_aligned(*cell) for cell in zip(row, sizes, align, strict=True))
            cells = [self.ink(cell, *filter(None, [inks.get(cell.strip())])) for cell in cells]
            first, *rest = wrap(last, room, break_on_hyphens=False) if len(last.rstrip()) > room else [last]
            yield self.ink((INDENT + _GAP.join([*cells, first])).rstrip(), *codes)
            yield from (self.ink(" " * start + line, *codes) for line in rest)

    def listing(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """Yields aligned rows without indentation; if they are too wide, the last cell of each is on the next line."""
        lines, sizes, align = _measure(rows, "", head)
        is_wide = sum(sizes) + len(_GAP) * (len(sizes) - 1) > self.columns
        for number, row in enumerate(lines):
            cells = [_aligned(*cell) for cell in zip(row, sizes, align, strict=True)]
            line = _GAP.join(cells[:-1] if is_wide else cells).rstrip()
            yield line if number else self.ink(line, DIM)
            if is_wide and number:
                yield from self.fold(row[-1])

    def _paragraphs(self, rows: Sequence[Sequence[str]], head: Sequence[str], bold: int | None) -> Iterator[str]:
        """Yields each row as its first cell and, after a colon, the others with the names of their columns."""
        for number, row in enumerate(rows):
            names = head or [""] * len(row)
            named = [f"{name} {cell}".strip() for name, cell in zip(names, row, strict=True) if cell]
            about = [named.pop(0)] if row[0] else []
            codes = (BOLD,) if number == bold else ()
            yield from self.fold(": ".join([*about, ", ".join(named)]), INDENT, _GAP, *codes)

    def bar(self, expected: float, upper: float, edge: float, scale: float, width: int) -> str:
        """Returns a bar of `width` cells to `scale`, with the edge marked; what is over the edge stays visible."""
        solid, light, mark = self.glyphs
        ends = [round(width * min(size, scale) / scale) for size in (expected, upper, edge)]
        full, ghost, at = max(ends[0], 1), max(ends[1], 1), ends[2]
        if upper > edge:
            ghost = max(ghost, at + 2)
        cells = f"{solid * full}{light * (ghost - full)}".ljust(at + 1)
        return cells[:at] + mark + cells[at + 1 :]


def stdout_page() -> TextPage:
    """Returns the page of standard output: as wide as the terminal, 40 to 120 columns, or 100 without one."""
    columns = shutil.get_terminal_size((_PIPED, 24)).columns
    return TextPage(max(_NARROWEST, min(columns, _WIDEST)), _shows_colours(), _encodes("".join(_BLOCKS)))


def list_page() -> TextPage:
    """Returns the page for a list: as wide as the terminal; without one a row is a line, however long."""
    return TextPage(shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize, _shows_colours())


def _shows_colours() -> bool:
    """no-color.org, then force-color.org, then what the terminal is."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def _encodes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _measure(
    rows: Sequence[Sequence[str]], align: str, head: Sequence[str]
) -> tuple[Sequence[Sequence[str]], list[int], str]:
    """Returns all lines of a table, the width of each column, and how each is aligned."""
    lines = [head, *rows] if head else rows
    columns = list(zip(*lines, strict=True))
    numeric = ("r" if all(map(str.isdigit, column[bool(head) :])) else "l" for column in columns)
    return lines, [max(map(len, column)) for column in columns], align or "".join(numeric)


def _aligned(cell: str, size: int, side: str) -> str:
    return cell.rjust(size) if side == "r" else cell.ljust(size)
