"""Tells mathematics from prose: formulas between math marks, numbers, and words that no formula holds."""

import re
from collections.abc import Iterator

_LONGEST = 320

NUMBER = re.compile(
    r"(?:(?<!\d)[-−])?(?:"
    r"(?:\d{1,9} ?)?\\[dt]?frac\s{0,3}(?:\{[^{}]{1,50}\}|\d)\s{0,3}(?:\{[^{}]{1,50}\}|\d)"
    r"|(?:\\?\$|[€£])?(?:\d{1,9} \d{1,9}/\d{1,9}(?![\d/])|\d(?:[\d,]|\{,\})*(?:\.\d+)?(?:/\d+)?|(?<![.\d])\.\d+)"
    r")",
    re.ASCII,
)
"""A number with its sign, also before a currency sign: `-$5` is not 5, but `10-5` ends in 5. U+2212 is also a minus."""

_THIN_SPACE = re.compile(r"(?<=\d)(?:,?\\!\s?|\{,\}\\!|\\[,;:]|[\u00a0\u2007\u2009\u202f])(?=\d{3}(?![\d/]))")
_FORMULA = re.compile(
    r"\$\$([^$]{1,300})\$\$|(?<!\\)\$([^$\n]{1,300})(?<!\\)\$|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]", re.DOTALL
)
_NOT_PROSE = re.compile(
    r"\\(?:text[a-z]{0,2}|math[a-z]{2}|mbox|emph|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\b(?:sqrt|sin|cos|tan|log|ln|pi|exp)\b"
)
_OTHER_LETTERS = "[\u0400-\u1fff\u3040-\u9fff\uac00-\ud7af]"
"""Letters that formulas do not use: Cyrillic, Arabic, Chinese and so on."""
_PROSE = re.compile(rf"[A-Za-z]{{2,}}|{_OTHER_LETTERS}")
_WORD = re.compile(rf"[A-Za-z]{{2,}}(?:['’-][A-Za-z]+)*|\b[aI]\b(?=\s)|{_OTHER_LETTERS}+")


def is_formula(text: str) -> bool:
    """Returns whether a text holds no words of prose."""
    return len(text) <= _LONGEST and _PROSE.search(_NOT_PROSE.sub(" ", text)) is None


def formulas(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields start, end and content of each formula between math marks; `$5 and $7` and `$5 + $7` are money."""
    for match in _FORMULA.finditer(text):
        formula = match[match.lastindex or 0].strip()
        if formula and formula[-1] not in "+-*/=,(" and is_formula(formula):
            yield match.start(), match.end(), formula


def without_math_marks(text: str) -> str:
    """Returns a text with its formulas bare."""
    pieces, at = [], 0
    for start, end, formula in formulas(text):
        pieces += [text[at:start], formula]
        at = end
    return "".join([*pieces, text[at:]])


def between_words(text: str) -> Iterator[tuple[int, int]]:
    """Yields the span of each stretch of text without words of prose that holds a digit or a command."""
    masked = _NOT_PROSE.sub(lambda match: "\\" * len(match[0]), text)
    edges = [0, *(edge for word in _WORD.finditer(masked) for edge in word.span()), len(text)]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if any(character.isdigit() or character == "\\" for character in masked[start:end]):
            yield start, end


def joined_digits(text: str) -> str:
    """Returns a text without the thin spaces that group digits: `11\\,111` and `11,\\! 111` are 11111."""
    return _THIN_SPACE.sub("", text)
