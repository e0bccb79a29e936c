r"""Sets of real numbers in any notation: intervals, inequalities, set-builder notation, unions and differences.

A set is the list of its cuts, sorted. A cut is just below or just above a number; the set holds what is between the
first and the second, the third and the fourth, and so on: `(1, 2]` is above 1 to above 2. `x < -1 \text{ or } x > 1`,
`(-\infty, -1) \cup (1, \infty)` and `\{x \mid |...\}` have the same cuts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, reduce
from itertools import pairwise

from lowmem_rl.verify.expression import image_of, variables
from lowmem_rl.verify.finite_field import Residue, same_image

_VARIABLE = r"(?![ei](?![A-Za-z_]))(?:[A-Za-z]|\\(?:theta|alpha|beta|lambda))(?:_\{?\w\}?)?"
_BUILDER = re.compile(
    rf"\\\{{\s*({_VARIABLE})\s*(?:\\in\s*(\\mathbb\s*\{{?R\}}?)\s*)?(?:\\mid|\\vert|\||:)\s*(.+)\\\}}", re.DOTALL
)
_MEMBER = re.compile(rf"({_VARIABLE})\s*\\in(?![A-Za-z])\s*(.+)", re.DOTALL)
_SIGN = re.compile(r"<=|>=|[<>=]|\\(?:[lg](?:eq(?:slant)?|e|t)|neq?)(?![A-Za-z])")
_DISTANCE = re.compile(
    rf"\|\s*({_VARIABLE})\s*([-+][^|]+)?\|\s*(<=|>=|[<>]|\\[lg](?:eq(?:slant)?|e|t)(?![A-Za-z]))(.+)"
)
_ALL = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R|\\Reals|all real(?: number)?s")
_INTERVAL = re.compile(r"([\[(])(.+)([\])])", re.DOTALL)
_FINITE = re.compile(r"\\\{(.+)\\\}", re.DOTALL)
_INFINITY = re.compile(r"([-+]?)\s*\\?inf(?:ty|in|inity)?|([-+]?)\s*oo")
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")
_SET_SIGN = re.compile(r"[<>U]|\\(?:[lg](?:e|t)|ne|cup|setminus|mathbb|mid|in(?![a-z])|lor|land)")
_MOST_CUTS, _MOST_BRACES = 40, 20


class _Undecided(Exception):
    """The text is no set of real numbers, or numbers in it cannot be compared."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """Just below (side 0) or above (side 1) a number; -∞ and ∞ have the numbers None, and sides -1 and 2."""

    number: Residue | None
    side: int


_LOWEST, _HIGHEST = _Cut(None, -1), _Cut(None, 2)
_Cuts = tuple[_Cut, ...]
_REALS: _Cuts = (_LOWEST, _HIGHEST)


@dataclass(frozen=True, slots=True)
class _RealSet:
    cuts: _Cuts
    variable: str = ""


def same_real_set(given: str, gold: str) -> bool | None:
    """Returns whether two texts in normal form are the same set of reals; None if one is none, or it is not known."""
    if not (_SET_SIGN.search(given) or _SET_SIGN.search(gold)):
        return None
    if given.count("\\{") + gold.count("\\{") > _MOST_BRACES:
        return None
    try:
        one, other = _read(given), _read(gold)
        if one.variable and other.variable and one.variable != other.variable:
            return None
        return len(one.cuts) == len(other.cuts) and not any(map(_order, one.cuts, other.cuts))
    except _Undecided:
        return None


def _read(text: str, level: int = 0) -> _RealSet:
    """Reads a text from the loosest connective (0, "or") to the tightest, then a single interval or inequality."""
    text = text.strip()
    if level == len(_CONNECTIVES):
        return _single(text)
    pattern, combine = _CONNECTIVES[level]
    if level == _SETS and (member := _MEMBER.fullmatch(text)) and not _SIGN.search(text):
        return _RealSet(_read(member[2], level).cuts, member[1])
    parts = [_read(part, level + 1) for part in _parts(text, pattern)]
    names = {part.variable for part in parts} - {""}
    is_list = combine is _listed and len(parts) > 1 and not names  # `(1, 2), (3, 4)` may be two points
    if is_list or len(names) > 1 or sum(len(part.cuts) for part in parts) > _MOST_CUTS:
        raise _Undecided
    return _RealSet(combine([part.cuts for part in parts]), "".join(names))


def _single(text: str) -> _RealSet:
    if builder := _BUILDER.fullmatch(text):
        found = _read(builder[3])
        if found.variable != builder[1]:
            raise _Undecided
        return found
    if _ALL.fullmatch(text):
        return _RealSet(_REALS)
    if text == "\\emptyset":
        return _RealSet(())
    if _SIGN.search(text):
        return _chain(text)
    if interval := _INTERVAL.fullmatch(text):
        return _interval(*interval.groups())
    if finite := _FINITE.fullmatch(text):
        return _RealSet(_union([_between(_end(p, 0), _end(p, 1)) for p in _parts(finite[1], _COMMA)]))
    raise _Undecided


def _around(name: str, offset: str, sign: str, radius: str) -> _RealSet:
    """Reads `|x - 2| < 3` as `-3 < x - 2 < 3`, and `|x - 2| > 3` as its two sides."""
    low, high = f"-({radius})-(0{offset})", f"({radius})-(0{offset})"
    if _order(_end("0", 0), _end(radius, 0)) >= 0:
        raise _Undecided
    if sign.startswith((">", "\\g")):
        return _read(f"{low} {sign} {name} \\lor {name} {sign} {high}")
    return _read(f"{low} {sign} {name} {sign} {high}")


def _interval(opening: str, ends: str, closing: str) -> _RealSet:
    if len(parts := _parts(ends, _COMMA)) != 2:
        raise _Undecided
    low, high = parts
    cuts = _between(_end(low, int(opening == "(")), _end(high, int(closing == "]")))
    if not cuts:  # (2, 1) is a point
        raise _Undecided
    return _RealSet(cuts)


def _chain(text: str) -> _RealSet:
    """Reads `1 < x`, `1 < x \\le 2` and `x \\ne 3`."""
    if distance := _DISTANCE.fullmatch(text):
        return _around(*distance.groups(""))
    sides, signs = [side.strip() for side in _SIGN.split(text)], _SIGN.findall(text)
    names = {side for side in sides if re.fullmatch(_VARIABLE, side)}
    if len(names) != 1:
        raise _Undecided
    (name,) = names
    cuts = [_compared(*pair, sign, name) for pair, sign in zip(pairwise(sides), signs, strict=True)]
    return _RealSet(reduce(_intersection_of_two, cuts), name)


def _compared(left: str, right: str, sign: str, name: str) -> _Cuts:
    """Returns the numbers x for which `x < 2` or `2 < x` holds."""
    if (left == name) == (right == name):
        raise _Undecided
    number = right if left == name else left
    below, above = _end(number, 0), _end(number, 1)
    if sign == "=":
        return _between(below, above)
    if sign.startswith("\\ne"):
        return (_LOWEST, below, above, _HIGHEST)
    is_strict = sign in {"<", ">", "\\lt", "\\gt"}
    is_less = sign.startswith(("<", "\\l"))
    if is_less == (left == name):
        return _between(_LOWEST, below if is_strict else above)
    return _between(above if is_strict else below, _HIGHEST)


def _end(text: str, side: int) -> _Cut:
    """Returns a cut at a number, which holds no variable: whether a < b is not known."""
    text = text.strip()
    if infinity := _INFINITY.fullmatch(text):
        return _LOWEST if "-" in infinity[0] else _HIGHEST
    number = None if variables(text) or re.search(r"\\(?!pi|sqrt|frac|cdot|times|ln)[A-Za-z]", text) else image_of(text)
    if number is None or number.near is None or number.near.value.imag:
        raise _Undecided
    return _Cut(number, side)


def _order(one: _Cut, other: _Cut) -> int:
    """Returns a negative number, 0 or a positive one. Raises `_Undecided` for numbers that cannot be compared."""
    if one.number is None or other.number is None or (same := same_image(one.number, other.number)):
        return one.side - other.side if one.number is None or other.number is None or same else 0
    if same is None or one.number.near is None or other.number.near is None:
        raise _Undecided
    return -1 if one.number.near.value.real < other.number.near.value.real else 1


def _between(low: _Cut, high: _Cut) -> _Cuts:
    return (low, high) if _order(low, high) < 0 else ()


def _combined(one: _Cuts, other: _Cuts, holds: Callable[[bool, bool], bool]) -> _Cuts:
    """Returns the set of the numbers for which `holds(in one, in the other)`."""
    result: list[_Cut] = []
    for cut in sorted([*one, *other], key=cmp_to_key(_order)):
        inside = holds(*(sum(_order(c, cut) <= 0 for c in cuts) % 2 == 1 for cuts in (one, other)))
        if inside != (len(result) % 2 == 1):
            result.append(cut)
    return tuple(result)


def _union(sets: Sequence[_Cuts]) -> _Cuts:
    return reduce(lambda one, other: _combined(one, other, lambda a, b: a or b), sets)


def _intersection_of_two(one: _Cuts, other: _Cuts) -> _Cuts:
    return _combined(one, other, lambda a, b: a and b)


def _intersection(sets: Sequence[_Cuts]) -> _Cuts:
    return reduce(_intersection_of_two, sets)


def _difference(sets: Sequence[_Cuts]) -> _Cuts:
    return reduce(lambda one, other: _combined(one, other, lambda a, b: a and not b), sets)


def _listed(sets: Sequence[_Cuts]) -> _Cuts:
    """Returns what a comma means: `x > 1, x < 5` is both, but `x < 1, x > 5`, which nothing satisfies, is either."""
    return _intersection(sets) or _union(sets)


_COMMA = re.compile(r"[,;]")
_CONNECTIVES: tuple[tuple[re.Pattern[str], Callable[[Sequence[_Cuts]], _Cuts]], ...] = (
    (re.compile(r"\\(?:lor|vee)(?![A-Za-z])"), _union),
    (_COMMA, _listed),
    (re.compile(r"\\(?:land|wedge)(?![A-Za-z])"), _intersection),
    (re.compile(r"\\cup(?![A-Za-z])|(?<=[\])}])\s*U\s*(?=[\[({\\])"), _union),
    (re.compile(r"\\cap(?![A-Za-z])"), _intersection),
    (re.compile(r"\\(?:setminus|backslash)(?![A-Za-z])|(?<=[R})])\s*-\s*(?=\\\{)"), _difference),
)
_SETS = 3
"""From this one on, a member's name may precede: `x \\in A \\cup B`."""


def _parts(text: str, separator: re.Pattern[str]) -> list[str]:
    """Returns the parts between separators that are in no bracket. Any closing bracket closes any opening one."""
    depth, at, start, parts = 0, 0, 0, []
    while at < len(text):
        if bracket := _BRACKET.match(text, at):
            depth += 1 if bracket[0].lstrip("\\") in "([{" else -1
            at = bracket.end()
        elif depth == 0 and (found := separator.match(text, at)):
            parts.append(text[start:at])
            at = start = found.end()
        else:
            at += 1
    return [*parts, text[start:]]
