"""The exact fast path: are two answers equal, as rationals, sequences of them, words or algebraic expressions.

It runs in the caller's process, is linear in a text of limited length, evaluates nothing, and returns None if it
cannot decide.
"""

import re
from fractions import Fraction
from typing import Literal

from lowmem_rl.verify.computation import is_left_to_do
from lowmem_rl.verify.congruences import same_congruence
from lowmem_rl.verify.normalize import NormalizedAnswer, normal_form
from lowmem_rl.verify.number_text import as_number, as_one_number
from lowmem_rl.verify.option import letter_of
from lowmem_rl.verify.real_sets import same_real_set
from lowmem_rl.verify.relations import same_relation
from lowmem_rl.verify.rounding import is_rounding
from lowmem_rl.verify.values import Bracketed, same_value, value_of

Percent = Literal["both", "number", "hundredth"]
"""What a percentage equals if the other answer has no sign."""

_DECIMAL = re.compile(r"(-?)\$?(\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.(\d{1,40}))?", re.ASCII)
_EQUALS = re.compile(r"(?<![<>!:\\=])=(?!=)|\\approx")
_RELATION = re.compile(r"[=<>]|\\(?:[lg](?:eq?|t)|neq?|approx)(?![A-Za-z])")
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:\s*_\s*(?:\w|\{\w+\}))?'?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*")


def equal_answers(given: str, gold: str) -> bool:
    """Returns whether `given` equals the gold answer by exact comparison; what it cannot decide counts as unequal."""
    return compare_exactly(given, gold) or False


def compare_exactly(given: str, gold: str, percent: Percent = "both") -> bool | None:
    """Returns whether `given` equals the gold answer; None if only symbolic algebra could decide it.

    Empty and overlong answers equal nothing.
    """
    if (one := _DECIMAL.fullmatch(given)) and "$" not in gold and (other := _DECIMAL.fullmatch(gold)):
        return _digits(one) == _digits(other)
    left, right = normal_form(given), normal_form(gold)
    if left is None or right is None or not _signs_agree(left, right):
        return False
    if (left.option or right.option) and (letters := _same_letters(left, right)) is not None:
        return letters
    is_percent = left.signs != right.signs and left.signs ^ right.signs == {"%"}
    if is_percent and percent == "hundredth":
        return _is_hundredth(left, right)
    verdict = _compare(left, right)
    if verdict is not True and (left.rounded or right.rounded) and _same_rounded(left, right):
        return True
    if is_percent and percent == "both" and verdict is False and not _is_integer(left, right):
        return _is_hundredth(left, right)
    return verdict


def _digits(decimal: re.Match[str]) -> tuple[str, str, str]:
    """Returns sign, whole part and places of a decimal, so that equal decimals have equal parts."""
    sign, whole, places = decimal.groups("")
    whole, places = whole.replace(",", "").lstrip("0"), places.rstrip("0")
    return sign if whole or places else "", whole, places


def _same_letters(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool | None:
    """Returns whether two options are the same; None if their texts decide, since one or both letters have one."""
    one, other = letter_of(given.option, given.text), letter_of(gold.option, gold.text)
    if not (one and other):
        return None
    return False if one != other else None if given.option and gold.option else True


def _same_rounded(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool:
    """Returns whether an answer equals the other one's rounded value; a wrongly rounded one counts for nothing."""
    values = [given] + ([given.rounded] if given.rounded and is_rounding(given.text, given.rounded.text) else [])
    return any(_compare(value, one) is True for value in values for one in (gold, gold.rounded) if one)


def _signs_agree(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool:
    """A sign may be left out but not differ; a sign and a unit could be two units: $5 and 5 cents, 5% and 5 cm."""
    if not gold.signs:
        return not (given.signs and gold.unit and not given.unit)
    return given.signs == gold.signs or not (given.signs or given.unit)


def _compare(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool | None:
    if given.unit and gold.unit and given.unit != gold.unit:
        return False
    left, right = _without_names(given.text, gold.text)
    if given.text == gold.text or left == right:
        return True
    if is_left_to_do(left, right):
        return False
    for compare in (_same_number, same_congruence, same_real_set):
        if (verdict := compare(given.text, gold.text)) is not None:
            return verdict
    if _RELATION.search(left) or _RELATION.search(right):
        return same_relation(left, right)
    one, other = value_of(left), value_of(right)
    verdict = same_value(one, other)
    if verdict is False and isinstance(one, Bracketed) and isinstance(other, Fraction):
        return as_one_number(left) == other
    return verdict


def _same_number(given: str, gold: str) -> bool | None:
    """Returns whether two numbers are equal; None if one is none, as is all that begins with a bracket."""
    if given[0] in "([" or (number := as_number(given)) is None:
        return None
    gold_number = as_number(gold)
    return None if gold_number is None else number == gold_number


def _without_names(given: str, gold: str) -> tuple[str, str]:
    """Returns the values of assignments: `x = 5` is 5 unless the gold answer names another variable.

    Two equations that are not assignments stay unchanged.
    """
    given, gold = _MEMBER.sub("", given, count=1), _MEMBER.sub("", gold, count=1)
    if not (_EQUALS.search(given) or _EQUALS.search(gold)):
        return given, gold
    (names, value), (gold_names, gold_value) = _names_and_values(given), _names_and_values(gold)
    if not gold_names:
        return value, gold
    if all(_VARIABLE.fullmatch(name) for name in gold_names) and (not names or names == gold_names):
        # With several names the order of the values matters; with one it does not.
        return (f"({value})", f"({gold_value})") if len(gold_names) > 1 else (value, gold_value)
    return given, gold


def _names_and_values(text: str) -> tuple[tuple[str, ...], str]:
    """Returns the assigned names, once each, and the assigned values; of a chain `x = a = b` the last."""
    parts = re.split(r"[,;]", text)
    if len(parts) == 1 or not all(_EQUALS.search(part) for part in parts):
        parts = [text]
    split = [_EQUALS.split(part) for part in parts]
    names = tuple(dict.fromkeys(sides[0].replace(" ", "") for sides in split if len(sides) > 1))
    return names, ", ".join(map(_last_value, split))


def _last_value(sides: list[str]) -> str:
    """Returns the last side of a chain of equations; of `20 = 14 + 6` the side that is a number."""
    *earlier, last = (side.strip() for side in sides)
    return next((side for side in earlier if is_left_to_do(last, side)), last)


def _is_hundredth(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool:
    """Returns whether a percentage's hundredth equals a number without the sign: 10% is also 0.1."""
    percent, bare = (given, gold) if "%" in given.signs else (gold, given)
    one, other = value_of(percent.text), value_of(bare.text)
    return isinstance(one, Fraction) and isinstance(other, Fraction) and one == other * 100


def _is_integer(given: NormalizedAnswer, gold: NormalizedAnswer) -> bool:
    """Returns whether the one without a percent sign is an integer: 300% for 3 is most often a slip."""
    bare = value_of((gold if "%" in given.signs else given).text)
    return isinstance(bare, Fraction) and bare.denominator == 1
