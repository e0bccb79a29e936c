"""The meaning of an answer in normal form (a number, a sequence, a word, an expression), and when two are equal.

Equality has three values here: True, False, and None if this module cannot decide it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, pairwise

from lowmem_rl.verify.computation import is_left_to_do
from lowmem_rl.verify.expression import same_expression
from lowmem_rl.verify.number_text import as_number


@dataclass(frozen=True, slots=True)
class Bracketed:
    """Values in brackets: `()`, `[]`, `(]`, `[)`, `{}`, "" for none, `matrix`, a `row` of it, or `union`."""

    brackets: str
    items: "tuple[Value, ...]"


@dataclass(frozen=True, slots=True)
class Word:
    """A text that is not mathematics, in lower case without spaces; also a number with its base, and infinity."""

    text: str


@dataclass(frozen=True, slots=True)
class Expression:
    """Anything else."""

    text: str
    is_cell: bool = False
    """A matrix's cell times the factor before the matrix."""


Value = Fraction | Bracketed | Word | Expression

_INFINITE = {Word("-∞"), Word("∞")}

_DEEPEST = 4
_MOST_ITEMS = 100
_PART = re.compile(r"\\[{}]|\\\\|[()\[\]{},;&]")
_OPEN = {"(": "(", "[": "[", "{": "", "\\{": "{"}
_CLOSE = {")": ")", "]": "]", "}": "", "\\}": "}"}
_MATRIX = re.compile(
    r"(.*?)(?:\[|\(|\\\{)?\s*\\begin\{((?:[pbB]|small)?matrix\*?|array)\}(?:\[[a-z]*\])?(?:\{[lcr|@{} ]*\})?"
    r"(.*)\\end\{\2\}\s*(?:\]|\)|\\\})?",
    re.DOTALL,
)
"""A factor, then the matrix."""
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\[\]]*\])?|\\cr(?![A-Za-z])")
_IN_BRACKETS = re.compile(r"\{[^{}]*\}|\([^()]*\)")
_INFINITY = re.compile(r"([-+]?)\s*(?:\\infty|\\infin|\\infinity|infinity|inf|oo)", re.IGNORECASE)
_BASED = re.compile(r"([0-9A-Za-z]*\d[0-9A-Za-z]*)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_CHOICE = re.compile(r"\(?([A-Z])[).:]?")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_LETTERS = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_NAMES = re.compile(
    "arcsin|arccos|arctan|sinh|cosh|tanh|sqrt|infty|infinity|frac|theta|alpha|beta|gamma|delta|lambda|sigma|omega"
)
_SHORT_WORDS = re.compile("not?|yes|odd|even|day|all|dne|[ap]m|an|is|of|to|in|if|red|one|two|six|ten")
_DOTTED = re.compile(r"\b[A-Za-z]\.\s?[A-Za-z]\b")
_UNION = re.compile(r"\\cup|(?<=[\])}])\s*U\s*(?=[\[({\\])")
_IMPROPER = re.compile(r"[-+]?\d+\s+\d+\s*/\s*\d+")
"""`1 3/2` is neither a mixed number nor a product."""
_COLON = re.compile(r"[\d.]+(?:\s*:\s*[\d.]+)+")
_RELATION_SIGNS = ("=", "<", ">", "\\le", "\\ge", "\\ne")


@lru_cache(maxsize=4096)
def value_of(text: str, depth: int = 0) -> Value:
    """Returns the meaning of a text in normal form that is inside `depth` brackets."""
    text = text.strip()
    if (number := as_number(text)) is not None:
        return number
    if infinity := _INFINITY.fullmatch(text):
        return Word("-∞" if infinity[1] == "-" else "∞")
    if depth < _DEEPEST and (items := _items(text, depth)) is not None:
        return items
    return _word(text) or Expression(text)


def same_value(given: Value, gold: Value) -> bool | None:
    """Returns whether two values are equal; None if that is not known here."""
    if isinstance(given, Fraction) and isinstance(gold, Fraction):
        return given == gold
    if isinstance(given, Word) or isinstance(gold, Word):
        return _same_word(given, gold)
    if isinstance(given, Bracketed) and isinstance(gold, Bracketed):
        return _same_items(given, gold)
    if isinstance(given, Bracketed) or isinstance(gold, Bracketed):
        # A list is not a number; but ±3 is a list, and a matrix may be written as a sum.
        return False if isinstance(given, Fraction) or isinstance(gold, Fraction) else None
    if isinstance(gold, Fraction) and _is_left_to_do(given, gold):
        return False
    verdict = same_expression(_formula(given), _formula(gold))
    return True if verdict is None and _terms(_formula(given)) == _terms(_formula(gold)) else verdict


def _is_left_to_do(given: Value, gold: Fraction) -> bool:
    return isinstance(given, Expression) and not given.is_cell and is_left_to_do(given.text, str(gold))


def _terms(text: str) -> list[str]:
    """Returns the signed terms of a sum, sorted: equal ones prove sums equal that have no other meaning here."""
    depth, terms = 0, [""]
    for at, character in enumerate(text := text.replace(" ", "")):
        depth += (character in "([{") - (character in ")]}")
        if character in "+-" and not depth and at and text[at - 1] not in "^_*/+-=,":
            terms.append("")
        terms[-1] += character
    return sorted(term if term[:1] in {"+", "-"} else f"+{term}" for term in terms)


def _formula(value: Fraction | Expression) -> str:
    return value.text if isinstance(value, Expression) else f"({value.numerator})/({value.denominator})"


def _word(text: str) -> Word | None:
    """Returns a text as a word, or None for mathematics, which has neither long runs of letters nor clock times."""
    if based := _BASED.fullmatch(text):
        return Word(f"{based[1]}_{based[2]}".lower())
    if choice := _CHOICE.fullmatch(text):
        return Word(choice[1]) if len(text) > 1 else None
    is_time = _COLON.fullmatch(text) or _IMPROPER.fullmatch(text) or _DOTTED.search(text)
    if is_time or any(_is_word(run.lower()) for run in _LETTERS.findall(_COMMAND.sub(" ", text))):
        return Word(re.sub(r"[\s.\"']", "", text).casefold())
    return None


def _is_word(run: str) -> bool:
    return (len(run) > 3 or "'" in run or _SHORT_WORDS.fullmatch(run) is not None) and not _NAMES.fullmatch(run)


def _same_word(given: Value, gold: Value) -> bool:
    """Words are equal if their letters are; a gold number with a base is also equal to the number without it."""
    one, other = _spelled(given), _spelled(gold)
    if one and isinstance(gold, Word) and "_" in other and one == other.partition("_")[0]:
        return True
    return one == other or (("+" in one or "-" in one) and _terms(one) == _terms(other))  # `abcd + 1`


def _spelled(value: Value) -> str:
    if isinstance(value, Word):
        return value.text
    if isinstance(value, Fraction):
        return str(value)
    return value.text.replace(" ", "") if isinstance(value, Expression) else ""


def _items(text: str, depth: int) -> Value | None:
    """Returns the sequence that a text is, the value itself if one pair of brackets holds one value, or None."""
    if "\\begin" in text:
        return _matrix(text, depth)
    if "\\cup" in text or "U" in text:
        return _union(text, depth)
    brackets, parts = _split(text) or ("", [])
    if not 0 < len(parts) <= _MOST_ITEMS or not all(part.strip() for part in parts):
        return None
    if len(parts) == 1:
        return value_of(parts[0], depth + 1) if brackets in {"()", "{}", "[]"} else None
    if not brackets and any(sign in part for part in parts for sign in _RELATION_SIGNS):
        return None  # assignments, such as `x = 1, y = 2`: their names matter
    return Bracketed(brackets, tuple(value_of(part, depth + 1) for part in parts))


def _split(text: str) -> tuple[str, list[str]] | None:
    """Returns the brackets around the whole text and the parts between its commas; None if there is neither."""
    scan = _scan(text)
    if scan is None:
        return None
    first_pair_ends, commas = scan
    opening = text[:2] if text.startswith("\\{") else text[:1]
    if first_pair_ends != len(text) or opening not in _OPEN:
        cuts = [at for at, depth in commas if depth == 0]
        return ("", _cut(text, cuts)) if cuts else None
    closing = text[-2:] if text.endswith("\\}") else text[-1:]
    cuts = [at - len(opening) for at, depth in commas if depth == 1]
    return _OPEN[opening] + _CLOSE[closing], _cut(text[len(opening) : len(text) - len(closing)], cuts)


def _scan(text: str) -> tuple[int, list[tuple[int, int]]] | None:
    """Returns the end of the pair that opens the text, or 0, and each comma with its depth; None for broken pairs.

    A half-open interval's brackets differ, so any closing bracket closes any opening one.
    """
    stack: list[int] = []
    commas: list[tuple[int, int]] = []
    first_pair_ends = 0
    for match in _PART.finditer(text):
        if match[0] in _OPEN:
            stack.append(match.start())
        elif match[0] in {",", ";"}:
            commas.append((match.start(), len(stack)))
        elif match[0] in _CLOSE:
            if not stack:
                return None
            if stack.pop() == 0:
                first_pair_ends = match.end()
    return None if stack else (first_pair_ends, commas)


def _cut(text: str, cuts: list[int]) -> list[str]:
    """Returns the parts between the cuts: only at commas before a space if the others group digits."""
    parts = _between(text, cuts)
    if len(parts) < 3 or ", " not in text:
        return parts
    wide = _between(text, [at for at in cuts if text[at + 1 : at + 2] == " "])
    grouped = [part for part in wide if "," in part]
    return wide if grouped and all(as_number(part.strip()) is not None for part in grouped) else parts


def _between(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start + 1 : end] for start, end in pairwise([-1, *cuts, len(text)])]


def _matrix(text: str, depth: int) -> Bracketed | None:
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match[1] + match[3]:
        return None
    factor = match[1].strip().removesuffix("\\cdot").removesuffix("\\times").strip()
    if re.search("(?<!^)[-+=]", _IN_BRACKETS.sub("", _IN_BRACKETS.sub("", factor))):
        return None  # a sum
    factor = f"{factor}1" if factor in {"+", "-"} else factor
    rows = [row.split("&") for row in _ROW_END.split(match[3].replace("\\hline", "")) if row.strip()]
    cells = [tuple(_cell(factor, cell.strip(), depth + 1) for cell in row) for row in rows]
    return Bracketed("matrix", tuple(Bracketed("row", row) for row in cells))


def _cell(factor: str, cell: str, depth: int) -> Value:
    """Returns a cell times the factor before its matrix."""
    if not factor:
        return value_of(cell, depth)
    one, other = value_of(factor, depth), value_of(cell, depth)
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one * other
    return Expression(f"({factor})({cell})", is_cell=True)


def _union(text: str, depth: int) -> Bracketed | None:
    parts = _UNION.split(text)
    values = [value_of(part, depth + 1) for part in parts] if 1 < len(parts) <= _MOST_ITEMS else []
    return Bracketed("union", tuple(values)) if values and all(isinstance(v, Bracketed) for v in values) else None


def _same_items(given: Bracketed, gold: Bracketed) -> bool | None:
    kinds = given.brackets, gold.brackets
    if "union" in kinds:
        # [1,2] and [2,3] may be one interval [1,3]; (1,2), (3,4) may be two points.
        if _may_be_points(given) or _may_be_points(gold):
            return False
        return _same_in_any_order(given.items, gold.items) or None
    if "matrix" in kinds and kinds[0] != kinds[1]:
        return _same_rows(given.items, gold.items)
    if set(kinds) <= {"", "{}"}:
        return _same_in_any_order(given.items, gold.items)
    if kinds[0] != kinds[1] and "" not in kinds and (len(gold.items) == 2 or "{}" in kinds):
        return False
    return _all(map(same_value, given.items, gold.items)) if len(given.items) == len(gold.items) else False


def _may_be_points(values: Bracketed) -> bool:
    pairs = [item.items for item in values.items if isinstance(item, Bracketed) and item.brackets == "()"]
    return not values.brackets and len(pairs) == len(values.items) and not _INFINITE & set(chain(*pairs))


def _same_rows(given: Sequence[Value], gold: Sequence[Value]) -> bool | None:
    """Returns whether a matrix equals a list of rows, `[[1, 2], [3, 4]]`; None if the other is no such list."""
    rows = [[value.items for value in values if isinstance(value, Bracketed)] for values in (given, gold)]
    if (len(rows[0]), len(rows[1])) != (len(given), len(gold)):
        return None
    if list(map(len, rows[0])) != list(map(len, rows[1])):
        return False
    return _all(map(same_value, chain(*rows[0]), chain(*rows[1])))


def _same_in_any_order(given: Sequence[Value], gold: Sequence[Value]) -> bool | None:
    """Returns whether two collections hold the same values; a repeated one counts once."""
    return _all([_is_among(value, gold) for value in given] + [_is_among(value, given) for value in gold])


def _is_among(value: Value, others: Sequence[Value]) -> bool | None:
    verdicts = [same_value(value, other) for other in others]
    return True if True in verdicts else None if None in verdicts else False


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    seen = set(verdicts)
    return False if False in seen else None if None in seen else True
