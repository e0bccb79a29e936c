"""A page of plain text: as wide as the terminal, in colours where they show, with tables, bars and folded lines.

By hand and not by rich, whose import alone takes a fifth of the time in which `profile` answers.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
"""SGR codes that read on dark and on light ground; the colours are the terminal's own."""
BLOCKS = ("█", "░", "│")
NARROWEST, WIDEST, PIPED = 40, 120, 100
INDENT, GAP = "  ", "  "
NARROWEST_CELL = 16
"""Columns below which text is not folded beside something else."""


@dataclass(frozen=True, slots=True)
class TextPage:
    """What a page may use."""

    columns: int = PIPED
    colours: bool = False
    blocks: bool = True
    """The encoding has block characters."""

    @property
    def glyphs(self) -> tuple[str, str, str]:
        """What bars are made of: expected, upper, edge."""
        return BLOCKS if self.blocks else ("#", "-", "|")

    def ink(self, text: str, *codes: str) -> str:
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and text and codes else text

    def heading(self, title: str, remark: str = "") -> Iterator[str]:
        """Yields an empty line, then a title with a remark beside it, or below where there is no room."""
        yield ""
        start = len(title + GAP)
        if self.columns - start < NARROWEST_CELL:
            yield from self.fold(title, "", INDENT, BOLD)
            yield from self.fold(remark, INDENT, "", DIM)
            return
        first, *rest = wrap(remark, self.columns - start) or [""]
        yield (self.ink(title, BOLD) + GAP + self.ink(first, DIM)).rstrip()
        yield from (self.ink(" " * start + line, DIM) for line in rest)

    def fold(self, text: str, indent: str = INDENT, hang: str = "", *codes: str) -> Iterator[str]:
        """Yields a paragraph; lines after the first are indented by `hang` besides."""
        lines = wrap(text, self.columns, initial_indent=indent, subsequent_indent=indent + hang, break_on_hyphens=False)
        yield from (self.ink(line, *codes) for line in lines)

    def table(
        self, rows: Sequence[Sequence[str]], align: str, head: Sequence[str] = (), bold: int | None = None
    ) -> Iterator[str]:
        """Yields aligned rows, `align` having "l" or "r" a column; a long last cell is folded in its column.

        On a page too narrow for the columns each row becomes a paragraph.
        """
        lines = [head, *rows] if head else rows
        sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
        start = len(INDENT) + sum(sizes[:-1]) + len(GAP) * (len(sizes) - 1)
        if start + min(sizes[-1], NARROWEST_CELL) > self.columns:
            yield from self._paragraphs(rows, head, bold)
            return
        for number, row in enumerate(lines, start=-1 if head else 0):
            codes = [DIM] if number < 0 else [BOLD] if number == bold else []
            *cells, last = (_aligned(*cell) for cell in zip(row, sizes, align, strict=True))
            room = self.columns - start
            first, *rest = wrap(last, room, break_on_hyphens=False) if len(last.rstrip()) > room else [last]
            yield self.ink((INDENT + GAP.join([*cells, first])).rstrip(), *codes)
            yield from (self.ink(" " * start + line, *codes) for line in rest)

    def _paragraphs(self, rows: Sequence[Sequence[str]], head: Sequence[str], bold: int | None) -> Iterator[str]:
        """Yields each row as its first cell and, behind a colon, the others with their column's name."""
        for number, row in enumerate(rows):
            names = head or [""] * len(row)
            named = [f"{name} {cell}".strip() for name, cell in zip(names, row, strict=True) if cell]
            about = [named.pop(0)] if row[0] else []
            codes = (BOLD,) if number == bold else ()
            yield from self.fold(": ".join([*about, ", ".join(named)]), INDENT, GAP, *codes)

    def bar(self, expected: float, upper: float, edge: float, scale: float, width: int) -> str:
        """Returns a bar of `width` cells to `scale`, with the edge marked; what passes the edge shows beyond it."""
        solid, light, mark = self.glyphs
        ends = [round(width * min(size, scale) / scale) for size in (expected, upper, edge)]
        full, ghost, at = max(ends[0], 1), max(ends[1], 1), ends[2]
        if upper > edge:
            ghost = max(ghost, at + 2)
        cells = f"{solid * full}{light * (ghost - full)}".ljust(at + 1)
        return cells[:at] + mark + cells[at + 1 :]


def stdout_page() -> TextPage:
    """Returns the page of standard output: as wide as the terminal, 40 to 120 columns, or 100 where there is none."""
    columns = shutil.get_terminal_size((PIPED, 24)).columns
    return TextPage(max(NARROWEST, min(columns, WIDEST)), _shows_colours(), _encodes("".join(BLOCKS)))


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


def _aligned(cell: str, size: int, side: str) -> str:
    return cell.rjust(size) if side == "r" else cell.ljust(size)
