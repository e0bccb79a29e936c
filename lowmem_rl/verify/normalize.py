"""Normalizes an answer: removes math marks, spacing and wrappers, and splits off its signs and its unit.

Each pass is one substitution over a text of limited length. Nothing is evaluated.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from lowmem_rl.verify.notation import from_unicode, with_latex_functions
from lowmem_rl.verify.option import split_option

LONGEST_ANSWER = 500
"""Characters; a longer answer equals nothing."""

TEXT = "\x1f"
"""Marks the start of a `\\text{...}`: a single letter after it is a unit, not a variable."""

_ONLY_NUMBERS = re.compile(r"[-+\d()\[\],./: ]+", re.ASCII)
_LIKE_ASCII = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u205f", " ")
    | dict.fromkeys("\u200b\u2060\ufeff", "")
    | {"×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "÷": "/", "⁄": "/", "∞": "\\infty ", "π": "\\pi "}
    | {"√": "\\sqrt ", "∅": "\\emptyset ", "≈": "\\approx ", "º": "°", "“": '"', "”": '"'}
    | {
        "≃": "\\approx ",
        "≅": "\\approx ",
        "²": "^2",
        "³": "^3",
        "±": "\\pm ",
        "∪": "\\cup ",
        "∈": "\\in ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
    }
)
_WHOLE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (r"\\\((.*)\\\)", r"\\\[(.*)\\\]", r"\*(.*)\*", r"_(.*)_", r"`(.*)`", r"\\(?:boxed|fbox)\s*\{(.*)\}")
]
_MATH = re.compile(r"(?<!\\)\$")
_NOISE = re.compile(
    r"(?<!\\)\\(?:[,;:! ]|(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|limits|quad|qquad"
    r"|(?:thin|med|thick|en|negthin)space|blacksquare|qed(?:symbol)?)(?![A-Za-z]))|\n|~"
)
_BETWEEN_NUMBERS = re.compile(r"(?<=\d)\\[,;:](?=\d(?!\d\d(?!\d)))")
"""A space in mathematics that groups no thousands: `12\\,34` is not 1234."""
_SPACES = {"\\ ", "\n", "~", "\\quad", "\\qquad", "\\thinspace", "\\enspace"}
_WRAPPERS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sl|sc|normal)?|math(?:rm|bf|it|sf|tt)|emph|mbox|operatorname)\s*\{([^{}]*)\}"
)
_EMPTY_SET = re.compile(r"\\varnothing(?![A-Za-z])")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degrees?(?![A-Za-z])")
_NAMED_SIGN = re.compile(r"(?<=[\d}$)])\s*\x1f?\s*(percent(?:age)?|pct|dollars?|cents?|degrees?)(?![A-Za-z])")
_NAMES = re.compile("percent|pct|dollar|cent|degree|illion|housand|undred|ozen")
_THOUSANDS = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(
    rf"(?<![\w.,/^}}])(\d[\d,]{{0,20}}(?:\.\d{{1,20}})?)[\s\x1f]*(?i:({'|'.join(_THOUSANDS)}))s?"
    r"(?![\sA-Za-z]*illion)(?![A-Za-z])"
)
_LABEL = re.compile(
    r"\s*\x1f?\s*(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my|our)\s+)?(?:(?:final|correct)\s+)?"
    r"(?:answer|option|choice)s?\s*(?::|(?:is|are)\b:?)\s*",
    re.IGNORECASE,
)
_ROUNDED = re.compile(
    r"[\s\x1f,(]*(?:\\approx(?![A-Za-z])|(?:about|approximately|approx\.?|roughly)(?=[\s\x1f]*[-\d.$\\]))[\s\x1f]*"
)
_HAS_VALUE = re.compile(r"\d|\\(?:pi|ln|log|sqrt)|(?<![A-Za-z])e(?![A-Za-z])")
_THIN_SPACE = re.compile(r"(?<=\d)[\u2009\u202f\u200a](?=\d{3}(?![\d/]))")
_SIGN_OF = {"p": "%", "d": "$", "c": "¢"}
_SIGN = re.compile(r"\\?[$%]|[€£¢¥₹°]")
_AND = re.compile(r"\s*,?\s*(?:\x1f\s*)?\b(?:and|or)\b\s*(?:\x1f\s*)?")
_INEQUALITY = re.compile(r"[<>]|\\(?:[lg](?:eq?|t)|neq?)(?![A-Za-z])")

_MEASURES = {
    name: short
    for short, names in {
        "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
        "in": "inch inche", "ft": "foot feet", "h": "hour hr", "min": "minute", "s": "second sec",
        "g": "gram gm", "kg": "kilogram kilo", "lb": "pound lb", "l": "liter litre",
    }.items()
    for name in names.split()
}  # fmt: skip
_SHORT = (
    r"mm|cm|dm|km|mi|ft|in|yd|kg|mg|lbs?|oz|ml|mL|hrs?|min|sec|ms|mph|kph|rpm|Hz|kW|kWh|GB|MB|gal|qt|pt|sq|cu"
    r"|(?i:[ap]\.?m)"
)
_WORD = rf"(?:(?:{_SHORT})(?![A-Za-z])|(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{{3,}})"
_UNIT = re.compile(
    rf"(?:(?<=[\w}})])\s*\x1f\s*(?P<text>[A-Za-z][A-Za-z .]*(?:/\s*[A-Za-z]+)?)"
    rf"|(?<=[\d}})])\s+(?P<words>{_WORD}(?:[ .]+{_WORD})*(?:/\s*[A-Za-z]+)?)"
    rf"|(?<=[\d}})])(?P<glued>(?:{_SHORT})(?:/[a-z]+)?))\.?(?P<power>\^\s*\{{?\s*[23]\s*\}}?)?$"
)
_HALF_OF_DAY = re.compile(r"\b([ap])\.m\b", re.IGNORECASE)
_NO_UNIT = re.compile(
    r"\b(?:(?:ten|hundred|thousand|[mb]illion|trillion)(?:ths?|s)?|[mb]n|dozens?|score|hal(?:f|ves)|thirds?"
    r"|(?:f(?:our|if)|six|seven|eigh|nin)ths?|zero|one|two|three|four|five|six|seven|eight|nine|point|and|or|nor|not?|none|but|if|is|to|than|mod|base"
    r"|pi|plus|minus|times|over|by|squared|cubed|factorial|sqrt|root|sin|cos|tan|log|ln|exp|less|more|least|most"
    r"|cents?|lakhs?|crores?|repeating|recurring|inverse)\b",
    re.IGNORECASE,
)
"""Words that change a number, or mean that it is not the answer."""


@dataclass(frozen=True, slots=True)
class NormalizedAnswer:
    """An answer's text in normal form, the signs it had (`$`, `%`, `°`), its unit or "", its option's letter or ""."""

    text: str
    signs: frozenset[str]
    unit: str
    option: str = ""
    rounded: "NormalizedAnswer | None" = None
    """The value after `\\approx`, if an exact one is before it."""


@lru_cache(maxsize=4096)
def normal_form(answer: str) -> NormalizedAnswer | None:
    """Returns the answer's normal form, or None if nothing is left of it or it is too long."""
    if len(answer) > LONGEST_ANSWER:
        return None
    if _ONLY_NUMBERS.fullmatch(answer):  # most answers: nothing below changes them
        text = " ".join(answer.rstrip(".,; ").split())
        return NormalizedAnswer(text, frozenset(), "") if text else None
    text = answer if answer.isascii() else from_unicode(_THIN_SPACE.sub("", answer)).translate(_LIKE_ASCII)
    option, text = split_option(_plain(_unwrapped(text)))
    text, rounded = _exact_and_rounded(text) if "pprox" in text or "about" in text else (text, None)
    signs: frozenset[str] = frozenset()
    if found := _SIGN.findall(text):
        signs = frozenset(sign.lstrip("\\") for sign in found)
        text = _SIGN.sub("", text)
    text, unit = _without_unit(text.strip().rstrip(".,;\\ "))
    text = " ".join(text.replace(TEXT, " ").split())
    return NormalizedAnswer(text, signs, unit, option, rounded) if text else None


def _exact_and_rounded(text: str) -> tuple[str, NormalizedAnswer | None]:
    """Returns an exact value, and the rounded one after it: of `x \\approx 11` the text itself, since x is a name."""
    rounded = _ROUNDED.search(text)
    if rounded is None:
        return text, None
    exact, value = text[: rounded.start()], text[rounded.end() :]
    if not exact:
        return value, None
    return (exact, normal_form(value.rstrip(" )"))) if _HAS_VALUE.search(exact) else (text, None)


def _unwrapped(text: str) -> str:
    """Returns the answer without the pairs of marks around all of it, at most six."""
    if "$" in text and len(_MATH.findall(text)) % 2 == 0:  # an odd number of dollars is money
        text = _MATH.sub("", text)
    for _ in range(6):
        text = text.strip().rstrip(".").strip()
        if text[:1] not in {"\\", "*", "`", "_"}:
            break
        inner = next((match[1] for pattern in _WHOLE if (match := pattern.fullmatch(text))), None)
        if inner is None or not _balanced(inner):
            break
        text = inner
    return text


def _balanced(text: str) -> bool:
    """Returns whether no bracket closes before it opens: `(1)+(2)` is not one pair around `1)+(2`."""
    depth = 0
    for character in text:
        depth += (character in "{(") - (character in ")}")
        if depth < 0:
            return False
    return depth == 0


def _plain(text: str) -> str:
    if "\\" in text or "{" in text or "~" in text or "\n" in text:
        text = _WRAPPERS.sub(rf" {TEXT}\1", text.replace("{,}", ",").replace("{ , }", ","))
        text = _BETWEEN_NUMBERS.sub(" ", text)
        text = _NOISE.sub(lambda match: " " if match[0] in _SPACES else "", text)
        text = _FRACTIONS.sub(r"\\frac", text)
        text = _EMPTY_SET.sub(r"\\emptyset", _DEGREES.sub("°", text))
    if "nswer" in text:
        text = _LABEL.sub("", text, count=1)
    if text.startswith(("negative ", "minus ", "Negative ", "Minus ")):
        text = "-" + text.partition(" ")[2].lstrip()
    if _NAMES.search(text):
        text = _SCALE.sub(_scaled, text)
        text = _NAMED_SIGN.sub(lambda match: _SIGN_OF.get(match[1][0], "%") if match[1][:2] != "de" else "°", text)
    text = with_latex_functions(text)
    if not (" or" in text or "and" in text or f"{TEXT}or" in text):
        return text
    return _AND.sub(_between_inequalities if _INEQUALITY.search(text) else ", ", text)


def _between_inequalities(match: re.Match[str]) -> str:
    return " \\lor " if "or" in match[0] else " \\land "


def _scaled(number: re.Match[str]) -> str:
    """Returns `42 million` in digits."""
    value = Fraction(number[1].replace(",", "")) * _THOUSANDS[number[2].lower()]
    return f"{float(value):.15g}" if value.denominator > 1 else str(value)


def _without_unit(text: str) -> tuple[str, str]:
    """Returns the text before a unit, and the unit's short name: `centimeters` is `cm`, `square feet` is `ft^2`."""
    unit = None if text[-1:].isdigit() and "^" not in text else _UNIT.search(text)
    if unit is None or _NO_UNIT.search(unit[0]):
        return text, ""
    name = _HALF_OF_DAY.sub(r"\1m", unit["text"] or unit["words"] or unit["glued"])
    square, cubic = name.startswith(("square ", "sq ")), name.startswith(("cubic ", "cu "))
    words = [_short(word) for word in name.replace(".", " ").split()][square or cubic :]
    power = "2" if square else "3" if cubic else re.sub(r"\D", "", unit["power"] or "")
    return text[: unit.start()].strip(), " ".join(words) + (f"^{power}" if power else "")


def _short(word: str) -> str:
    one = word.lower().removesuffix("s") if len(word) > 2 else word.lower()
    return _MEASURES.get(one, one)
