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
from lowmem_rl.verify.normalize import normal_form
from lowmem_rl.verify.number_text import as_number

Matrix = tuple[tuple[Fraction, ...], ...]

_LONGEST = 4000
"""Characters; a longer text is not read as a matrix."""
_MOST_ENTRIES = 400
_TOLERANCE = 1.0
"""Factor of the distance in `score_l1`'s exponent: at 1, a total error of 0.7 halves the score."""

_LARGEST = 10**15
"""Of a numerator or denominator."""

_LATEX = re.compile(
    r"\\begin\{((?:[bBpvV]|small)?matrix\*?|array)\}(?:\[[a-z]*\])?(?:\{[lcr|@{} ]*\})?(.*)\\end\{\1\}", re.DOTALL
)
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\[\]]*\])?|\\cr(?![A-Za-z])")
_FRACTION = r"\\[dtc]?frac\s*(?:\{[^{}]*\}|\d)\s*(?:\{[^{}]*\}|\d)"
_FACTOR = re.compile(rf"([-+−]?\s*(?:{_FRACTION}|[\d./]+)?)\s*(?:\\cdot|\\times|\*)?\s*(?:\\left)?\s*[\[(]?\s*$")
"""Directly before the matrix, as in `\\frac{1}{5}\\begin{pmatrix}`."""
_NOISE = re.compile(r"\\(?:left|right)(?![A-Za-z])|\$|\\hline")
_LIST = re.compile(r"(?:[^=\[]*=)?\s*\[\s*\[(.*)\]\s*\]\s*\.?", re.DOTALL)


def read_matrix(text: str) -> Matrix | None:
    """Returns the matrix in a text, or None; rows of unequal length are not a matrix."""
    if len(text) > _LONGEST:
        return None
    text, factor = _NOISE.sub(" ", text).strip(), Fraction(1)
    if latex := _LATEX.search(text):
        rows = [row.split("&") for row in _ROW_END.split(latex[2]) if row.strip()]
        factor = _factor_before(text[: latex.start()])
    else:
        listed = _LIST.fullmatch(text)
        rows = [row.split(",") for row in re.split(r"\]\s*,\s*\[", listed[1])] if listed else []
    if len({len(row) for row in rows}) != 1 or sum(map(len, rows)) > _MOST_ENTRIES:
        return None
    numbers = [[_number(cell) for cell in row] for row in rows]
    matrix = tuple(tuple(factor * number for number in row if number is not None) for row in numbers)
    return matrix if all(len(row) == len(rows[0]) for row in matrix) else None


def _factor_before(text: str) -> Fraction:
    found = _FACTOR.search(text)
    sign = found[1].strip() if found else ""
    return Fraction(-1) if sign in {"-", "−"} else _number(sign) or Fraction(1)


def _number(text: str) -> Fraction | None:
    """Returns a number of reasonable size without sign or unit, or None."""
    answer = normal_form(text)
    number = as_number(answer.text) if answer and not answer.signs and not answer.unit else None
    return number if number is not None and max(abs(number.numerator), number.denominator) <= _LARGEST else None


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
