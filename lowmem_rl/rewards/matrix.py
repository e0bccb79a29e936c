"""Partial credit for matrices: three ways to be nearly right, none of which pays for a wrong shape.

The gold matrix is the example's answer, as `[[1, 2], [3, 4/5]]` or in LaTeX. Entries are exact.
"""

import math
import operator
import re
from fractions import Fraction
from itertools import chain

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import stated_answer
from lowmem_rl.rewards.reward import Reward

Matrix = tuple[tuple[Fraction, ...], ...]

_LONGEST = 4000
"""Characters; a longer text is not read as a matrix."""
_MOST_ENTRIES = 400
_TOLERANCE = 1.0
"""Factor of the distance in `score_l1`'s exponent: at 1, a total error of 0.7 halves the score."""

_LATEX = re.compile(r"\\begin\{([bpvB]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d{1,15})\}\{(\d{1,15})\}", re.ASCII)
_ENTRY = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,15})?)(?:/(?!0+\Z)(\d{1,15}))?", re.ASCII)


def read_matrix(text: str) -> Matrix | None:
    """Returns the matrix in a text, or None; rows of unequal length are not a matrix."""
    if len(text) > _LONGEST:
        return None
    text = _FRACTION.sub(r"\1/\2", text).replace("−", "-")
    if latex := _LATEX.search(text):
        rows = [row.split("&") for row in latex[2].replace(r"\hline", "").split(r"\\") if row.strip()]
    else:
        text = "".join(text.split()).strip("$")
        is_list = text.startswith("[[") and text.endswith("]]")
        rows = [row.split(",") for row in text[2:-2].split("],[")] if is_list else []
    entries = [[_ENTRY.fullmatch(cell.strip()) for cell in row] for row in rows]
    if len({len(row) for row in entries}) != 1 or sum(map(len, entries)) > _MOST_ENTRIES:
        return None
    matrix = tuple(tuple(Fraction(entry[1]) / Fraction(entry[2] or 1) for entry in row if entry) for row in entries)
    return matrix if all(len(row) == len(entries[0]) for row in matrix) else None


def score_rows(completion: str, example: Example) -> float:
    """The share of rows that are right."""
    given, gold = _matrices(completion, example)
    return 0.0 if given is None else sum(map(operator.eq, given, gold)) / len(gold)


def score_frobenius(completion: str, example: Example) -> float:
    """1 minus the relative error in the Frobenius norm, at least 0: ‖X - G‖ / ‖G‖."""
    given, gold = _matrices(completion, example)
    if given is None:
        return 0.0
    error = math.sqrt(sum(float(d) ** 2 for d in _differences(given, gold)))
    size = math.sqrt(sum(float(entry) ** 2 for entry in chain(*gold)))
    return max(0.0, 1 - error / size) if size else float(error == 0)


def score_l1(completion: str, example: Example) -> float:
    """2 exp(-‖X - G‖₁), the norm over entries: 2 for the gold matrix, 0 if there is none."""
    given, gold = _matrices(completion, example)
    if given is None:
        return 0.0
    return 2 * math.exp(-float(sum(_differences(given, gold))) * _TOLERANCE)


def _matrices(completion: str, example: Example) -> tuple[Matrix | None, Matrix]:
    """Returns the given matrix, or None if its shape is not that of the gold one, and the gold one."""
    gold = read_matrix(example.answer)
    if gold is None:
        raise ValueError(f"the example's answer {example.answer[:80]!r} is not a matrix")
    given = read_matrix(stated_answer(completion) or "")
    if given is None or (len(given), len(given[0])) != (len(gold), len(gold[0])):
        return None, gold
    return given, gold


def _differences(given: Matrix, gold: Matrix) -> list[Fraction]:
    return [abs(x - g) for x, g in zip(chain(*given), chain(*gold), strict=True)]


MATRIX_ROWS = Reward("matrix_rows", score_rows)
MATRIX_FROBENIUS = Reward("matrix_frobenius", score_frobenius)
MATRIX_L1 = Reward("matrix_l1", score_l1, high=2.0)
