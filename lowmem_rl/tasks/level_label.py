"""A row's level of difficulty, in the ways in which data sets write it; a higher one is harder.

`Level 5` (MATH), 5.5 (DeepMath), `3/8` (Polaris), 0.25 (Big-Math), `25%`, `hard`. An empty one, `Level ?` and -1 are
unknown. The solve rates of Polaris and Big-Math are higher for easier problems.
"""

import math
import re

from lowmem_rl.tasks.source_row import SourceRow

_LABEL = re.compile(
    r"(?:level|lvl|lv|l|grade|difficulty)?[\s:._-]*(\d{1,9}(?:\.\d{1,9})?)(?:\s*(?:/|of)\s*(\d{1,9}(?:\.\d{1,9})?))?\s*(%?)"
)
_UNKNOWN = re.compile(r"|(?:(?:level|difficulty)\s*)?(?:\?|-1(?:\.0)?|nan|none|null|n/?a|unknown)")
_WORDS = {"very easy": 0, "easy": 1, "medium": 2, "moderate": 2, "hard": 3, "difficult": 3, "very hard": 4}


def read_level(row: SourceRow, column: str) -> float | None:
    """Returns the number of a row's level, None if it is unknown. Raises `TaskError` for anything else."""
    value = row.value(column)
    number = _level_of(value.strip().lower()) if isinstance(value, str) else value
    if number is None or (isinstance(number, float) and math.isnan(number)):
        return None
    if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) < math.inf:
        fix = "A level is a number, a share such as 3/8, 'Level 5', or easy, medium or hard."
        raise row.unusable(f"column {column!r} is {value!r:.80}, not a level", fix)
    if number < 0:
        return None
    return int(number) if number == int(number) else float(number)


def _level_of(label: str) -> float | str | None:
    """Returns the number of a label, None for an unknown one, the label itself if it is none."""
    if _UNKNOWN.fullmatch(label):
        return None
    if label in _WORDS:
        return _WORDS[label]
    found = _LABEL.fullmatch(label)
    if not found:
        return label
    number, whole, percent = found.groups()
    divisor = float(whole or 1) * (100 if percent else 1)
    return float(number) / divisor if divisor else label
