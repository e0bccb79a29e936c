"""Arithmetic that a model wrote, computed exactly and within bounds. Nothing of it runs as code.

A text becomes tokens of a closed alphabet, then Python's syntax tree, of which a few node kinds are computed over
fractions. Length, depth, powers and the size of every value are bounded.
"""

import ast
import re
from collections.abc import Mapping
from fractions import Fraction

_LONGEST = 200
"""Characters; this also bounds the number of nodes and the depth."""
_MOST_BITS = 256
"""Of a numerator or a denominator, at every step."""
_HIGHEST_POWER = 64

_SPELLINGS = {r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "/", r"\left": " ", r"\right": " "}
_SPELLINGS |= dict.fromkeys("×·⋅∙•∗✕✖", "*") | dict.fromkeys("÷∕⁄", "/") | dict.fromkeys("−–", "-")
_SPELLINGS |= dict.fromkeys((r"\(", r"\)", r"\[", r"\]", r"\,", r"\;", r"\!", r"\ ", "$"), " ")
_SPELLINGS |= {"^": "**", "{": "(", "}": ")"}
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_GROUP = re.compile(r"(?<!frac)(?<![}\s])\{([^{}]*)\}")
_MIXED = re.compile(r"[\d.]\s*\\[dtc]?frac")
_TOKEN = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?|[a-z]|\*\*|[-+*/()])", re.ASCII)
_OPERAND_END, _OPERAND_START = re.compile(r"[\da-z)]", re.ASCII), re.compile(r"[\da-z(]", re.ASCII)


class BadExpression(ValueError):
    """A text that is not arithmetic within the bounds."""


def parse(text: str) -> ast.expr:
    """Returns the syntax tree of sums, products, quotients and powers of numbers and one-letter names.

    Raises `BadExpression` for any other text.
    """
    source = " ".join(_with_products(_tokens(text)))
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadExpression(f"{text[:80]!r} is not arithmetic") from error


def compute(tree: ast.expr, names: Mapping[str, Fraction] | None = None) -> Fraction:
    """Returns the exact value. Raises `BadExpression` for unknown names and nodes, division by 0 and huge values."""
    match tree:
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.Name(id=name) if names and name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = compute(operand, names)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=operator, right=right):
            value = _apply(operator, compute(left, names), compute(right, names))
            if _bits(value) > _MOST_BITS:
                raise BadExpression("the value is too large")
            return value
    raise BadExpression(f"{type(tree).__name__} is not arithmetic")


def numbers_in(tree: ast.expr) -> list[Fraction]:
    """Returns the numbers written in an expression, repeated ones repeatedly."""
    return [Fraction(str(node.value)) for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def has_power(tree: ast.expr) -> bool:
    """Returns whether an expression contains a power, which some tasks do not allow."""
    return any(isinstance(node, ast.Pow) for node in ast.walk(tree))


def _tokens(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise BadExpression(f"longer than {_LONGEST} characters")
    text = _with_quotients(text)
    for spelling, operator in _SPELLINGS.items():
        text = text.replace(spelling, operator)
    tokens, position = [], 0
    text = text.strip(" .,;\n\t")
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise BadExpression(f"{text[position : position + 20]!r} is not arithmetic")
        # Python refuses leading zeros.
        tokens.append(token[1].lstrip("0") or "0" if token[1].isdigit() else token[1])
        position = token.end()
    return tokens


def _with_quotients(text: str) -> str:
    """Writes `\\frac{a}{b}` as `((a)/(b))`, the innermost first; `1\\frac{1}{2}` may be a sum or a product."""
    if _MIXED.search(text):
        raise BadExpression("a number before \\\\frac has two readings")
    before = ""
    while "frac" in text and text != before:
        before, text = text, _FRACTION.sub(lambda m: f"(({m[1] or m[2]})/({m[3] or m[4]}))", text)
        text = text if text != before else _GROUP.sub(r"(\1)", text, count=1)
    return text


def _with_products(tokens: list[str]) -> list[str]:
    """Writes out the products of `2n` and `3(n + 1)`; two adjacent numbers stay a mistake."""
    written: list[str] = []
    for token in tokens:
        if written and _OPERAND_END.search(written[-1]) and _OPERAND_START.match(token):
            both_numbers = written[-1][-1].isdigit() and token[0].isdigit()
            written += [] if both_numbers else ["*"]
        written.append(token)
    return written


def _apply(operator: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() if right:
            return left / right
        case ast.Pow():
            return _power(left, right)
    raise BadExpression("division by zero" if isinstance(operator, ast.Div) else "unknown operator")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Raises to a small whole power; the size is bounded before anything is multiplied."""
    if exponent.denominator != 1 or not 0 <= exponent <= _HIGHEST_POWER:
        raise BadExpression(f"a power must be a whole number up to {_HIGHEST_POWER}")
    if _bits(base) * exponent > _MOST_BITS + _HIGHEST_POWER:
        raise BadExpression("the value is too large")
    return base ** int(exponent)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
