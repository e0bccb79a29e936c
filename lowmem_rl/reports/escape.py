"""Makes text from models and users safe to show; all of it may be hostile.

The template escapes HTML. Here is what that leaves: control characters that a terminal obeys, marks that change the
reading direction, and a completion of a megabyte.
"""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from lowmem_rl.stats import PairedDifference

Fact = tuple[str, str]
"""A label and its value."""
_LONGEST = 4000
"""Characters of a text that are shown."""
LONGEST_COMPARED = 2000
"""Characters that are searched for differences: the time grows with the square."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, with the escape that starts a terminal's commands
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction marks (Unicode UAX #9), separators, zero widths
    "\ud800-\udfff\U000e0000-\U000e007f]"  # half characters, invisible tags
)
_WORD = re.compile(r"\w+|\s+|.", re.DOTALL)


def shown(text: object, longest: int = _LONGEST) -> str:
    """Returns a text with invisible characters spelled out, as in <U+202E>, cut after `longest` characters."""
    whole = str(text).replace("\r\n", "\n")
    visible = _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", whole[:longest])
    rest = len(whole) - longest
    return f"{visible} … {rest:,} characters more" if rest > 0 else visible


def one_line(text: object, longest: int = 80) -> str:
    """Returns a text on one line, cut after `longest` characters."""
    line = " ".join(str(text)[: 4 * longest].split())
    return shown(line if len(line) <= longest else f"{line[: longest - 1]}…", longest)


def marked(earlier: str, later: str) -> Iterator[tuple[bool, str]]:
    """Yields `later` in pieces, each with whether it differs from `earlier`; compared by words."""
    rest = later[LONGEST_COMPARED:]
    old, new = (_WORD.findall(text[:LONGEST_COMPARED]) for text in (earlier, later))
    for tag, _, _, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if piece := "".join(new[start:end]):
            yield tag != "equal", piece
    if rest:
        yield False, rest


def percent(share: float | None) -> str:
    """Returns a share in percent."""
    return "-" if share is None else f"{100 * share:.1f} %"


def p_text(p_value: float) -> str:
    """Returns a p-value without false precision."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def points(difference: PairedDifference) -> str:
    """Returns a gain in percentage points with its interval."""
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    return f"{100 * difference.gain:+.1f} points [{low:+.1f}, {high:+.1f}]"
