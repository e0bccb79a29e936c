"""Reads an algebraic expression into its image in the field: recursive descent, bounded in length and depth.

It reads what LaTeX and plain text have in common, and refuses what it cannot read or what has two readings (1/2x).
Only images are computed.
"""

import re
from fractions import Fraction
from functools import lru_cache

from lowmem_rl.verify import finite_field, functions
from lowmem_rl.verify.finite_field import Residue, UnknownImage

_DEEPEST = 30

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[A-Za-z]+)|(?P<letters>[A-Za-z]+)"
    r"|(?P<mark>\*\*|[-+*/^_{}()\[\]!|]))",
    re.ASCII,
)
_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|(?:var)?phi|chi|psi|omega|pi"
)
_TIMES = {"*", "\\times", "\\cdot"}
_OVER = {"/", "\\div"}
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_ROUNDINGS = {"\\lfloor": ("floor", "\\rfloor"), "\\lceil": ("ceil", "\\rceil"), "|": ("abs", "|")}
"""Opening mark -> function, closing mark."""
_ENDS = {"\\rfloor", "\\rceil"}
_NO_PRODUCT = re.compile("lim|max|min|gcd|lcm|mod|inf|oo", re.IGNORECASE)


def same_expression(left: str, right: str) -> bool | None:
    """Returns whether two expressions are equal; None if that is not known here."""
    one, other = image_of(left), image_of(right)
    return None if one is None or other is None else finite_field.same_image(one, other)


@lru_cache(maxsize=4096)
def image_of(text: str, fixed: tuple[str, int] | None = None) -> Residue | None:
    """Returns an expression's image, or None if it has none; `fixed` is a variable and the residue that replaces it."""
    try:
        reader = _Reader(_tokens(text), fixed)
        image = reader.sum(0)
        return image if not reader.peek() else None
    except UnknownImage:
        return None


@lru_cache(maxsize=1024)
def variables(text: str) -> tuple[str, ...]:
    """Returns the single letters for which an expression may be solved, each once."""
    try:
        return tuple(dict.fromkeys(token for token in _tokens(text) if token.isalpha() and token not in "ei"))
    except UnknownImage:
        return ()


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    for match in _TOKEN.finditer(text):
        if match.start() != at:
            raise UnknownImage
        at = match.end()
        tokens += _factors(match["letters"]) if match["letters"] else [match[0].strip()]
    if not tokens or text[at:].strip():
        raise UnknownImage
    return tokens


def _factors(letters: str) -> list[str]:
    """Returns a run of letters as its factors: `xy` is x times y, `pi` and `sqrt` are one name."""
    if letters in {"pi", "sqrt"} or letters in functions.FUNCTIONS:
        return [f"\\{letters}"]
    if _NO_PRODUCT.fullmatch(letters) or len(letters) > 3:
        raise UnknownImage
    return list(letters)


class _Reader:
    """Each method reads one level of precedence at position `at`, moves past it, or raises `UnknownImage`."""

    def __init__(self, tokens: list[str], fixed: tuple[str, int] | None) -> None:
        self.tokens = tokens
        self.fixed = fixed
        self.at = self.bars = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise UnknownImage
        self.at += 1
        return token

    def sum(self, depth: int) -> Residue:
        if depth > _DEEPEST:
            raise UnknownImage
        total = self.product(depth)
        while self.peek() in {"+", "-"}:
            sign, term = self.take(), self.product(depth)
            total = finite_field.add(total, term if sign == "+" else finite_field.negate(term))
        return total

    def product(self, depth: int) -> Residue:
        value, divided = self.signed(depth), False
        while token := self.peek():
            if token in _TIMES:
                self.take()
                value = finite_field.multiply(value, self.signed(depth))
            elif token in _OVER:
                self.take()
                value, divided = finite_field.divide(value, self.signed(depth)), True
            elif self.starts_factor(token):
                # 1/2x may be x/2 or 1/(2x).
                if divided or self._may_be_mixed(token):
                    raise UnknownImage
                value = finite_field.multiply(value, self.power(depth))
            else:
                break
        return value

    def _may_be_mixed(self, token: str) -> bool:
        """Returns whether a number follows another directly: `2\\frac{1}{2}` may be a sum, `2 3` anything."""
        return self.tokens[self.at - 1][-1].isdigit() and (token == "\\frac" or token[0].isdigit() or token[0] == ".")

    def starts_factor(self, token: str) -> bool:
        if token == "|":
            return not self.bars
        return token[0].isalnum() or token[0] in ".({[" or (token[0] == "\\" and token not in _TIMES | _OVER | _ENDS)

    def signed(self, depth: int) -> Residue:
        if depth > _DEEPEST:
            raise UnknownImage
        if self.peek() in {"+", "-"}:
            sign, value = self.take(), self.signed(depth + 1)
            return value if sign == "+" else finite_field.negate(value)
        return self.power(depth)

    def power(self, depth: int) -> Residue:
        value = self.atom(depth)
        if self.peek() == "!":
            self.take()
            value = finite_field.factorial(_natural(value))
            if self.peek() == "!":  # n!! is a product of every second number
                raise UnknownImage
        return finite_field.power(value, self.exponent(depth)) if self.peek() in {"^", "**"} else value

    def exponent(self, depth: int) -> Residue:
        self.take()
        return self.atom(depth) if self.peek() == "{" else self.signed(depth + 1)

    def atom(self, depth: int) -> Residue:
        token = self.take()
        if token in _CLOSING:
            return self.inside(token, depth)
        if token[0].isdigit() or token[0] == ".":
            return finite_field.rational(Fraction(token))
        if token in {"\\frac", "\\binom"}:
            above, below = self.argument(depth), self.argument(depth)
            if token == "\\frac":
                return finite_field.divide(above, below)
            return finite_field.binomial(_natural(above), _natural(below))
        if token == "\\sqrt":
            return self.root(depth)
        if token in _ROUNDINGS:
            return self.rounded(*_ROUNDINGS[token], depth)
        if token[1:] in functions.FUNCTIONS:
            return self.function(token[1:], depth)
        return self.symbol(token)

    def rounded(self, name: str, closing: str, depth: int) -> Residue:
        """Reads the rest of `\\lfloor x \\rfloor` and `|x|`; a bar inside bars closes them."""
        self.bars += closing == "|"
        value = self.sum(depth + 1)
        self.bars -= closing == "|"
        self.take(closing)
        return functions.function(name, value)

    def inside(self, opening: str, depth: int) -> Residue:
        value = self.sum(depth + 1)
        self.take(_CLOSING[opening])
        return value

    def root(self, depth: int) -> Residue:
        if self.peek() != "[":
            return finite_field.root(self.argument(depth))
        degree = self.inside(self.take(), depth)
        return finite_field.power(self.argument(depth), finite_field.divide(finite_field.rational(Fraction(1)), degree))

    def function(self, name: str, depth: int) -> Residue:
        """Reads `\\sin^2 (x)`, `\\sin 2x` and `\\log_2 8`; a bare argument ends before the next function."""
        base = exponent = None
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.argument(depth)
        if self.peek() in {"^", "**"}:
            exponent = self.exponent(depth)
            if exponent.rational is None or exponent.rational < 0:  # \sin^{-1} is not 1/\sin
                raise UnknownImage
        argument = self.function_argument(depth)
        value = functions.function(name, argument)
        if base is not None:
            value = finite_field.divide(functions.function("ln", argument), functions.function("ln", base))
        return value if exponent is None else finite_field.power(value, exponent)

    def function_argument(self, depth: int) -> Residue:
        return self.inside(self.take(), depth) if self.peek() in _CLOSING else self.bare_argument(depth + 1)

    def bare_argument(self, depth: int) -> Residue:
        if depth > _DEEPEST:
            raise UnknownImage
        value = self.power(depth)
        while (token := self.peek()) and self.starts_factor(token) and token not in _CLOSING:
            if token[1:] in functions.FUNCTIONS or self._may_be_mixed(token):
                break
            value = finite_field.multiply(value, self.power(depth))
        return value

    def argument(self, depth: int) -> Residue:
        """Reads the argument of a command: a group, or a single digit or letter."""
        token = self.peek()
        if token in {"{", "("}:
            return self.inside(self.take(), depth)
        if token[:1].isdigit() and "." not in token:
            return self.digit()
        if token == "\\pi" or (len(token) == 1 and token.isalpha()):
            return self.symbol(self.take())
        raise UnknownImage

    def digit(self) -> Residue:
        """Reads one digit and leaves the rest of the number for the next argument: `\\frac12`, but `\\sqrt 13`."""
        token = self.take()
        if self.tokens[self.at - 2] in {"\\sqrt", "]"} or len(token) == 1:
            return finite_field.rational(Fraction(token))
        self.at -= 1
        self.tokens[self.at] = token[1:]
        return finite_field.rational(Fraction(token[0]))

    def symbol(self, token: str) -> Residue:
        name = token.removeprefix("\\")
        if token == "\\degree":
            return _DEGREE
        if not (len(token) == 1 and token.isalpha()) and not (token != name and _GREEK.fullmatch(name)):
            raise UnknownImage
        if self.peek() == "_":
            self.take()
            name += f"_{self.subscript()}"
        if self.fixed is not None and name == self.fixed[0]:
            return finite_field.residue(self.fixed[1])
        return finite_field.symbol(name)

    def subscript(self) -> str:
        if self.peek() != "{":
            return self.take()
        self.take()
        name = ""
        while (token := self.take()) != "}":
            name += token
        return name


_DEGREE = finite_field.divide(finite_field.symbol("pi"), finite_field.rational(Fraction(180)))


def _natural(value: Residue) -> int:
    number = value.rational
    if number is None or number.denominator > 1 or number < 0:
        raise UnknownImage
    return min(int(number), finite_field.LARGEST_FACTORIAL + 1)
