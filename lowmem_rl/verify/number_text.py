"""Reads numbers in the forms that people write as exact fractions."""

import re
from fractions import Fraction

_GROUPED = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+"
_DECIMAL = re.compile(rf"([-+]?)\s*({_GROUPED})?(?:\.(\d*))?", re.ASCII)
_REPEATING = re.compile(r"([-+]?)\s*(\d{0,40})\.(\d{0,40})\s*\\(?:overline|bar)\s*\{(\d{1,40})\}", re.ASCII)
_INT = rf"({_GROUPED})"
_SIGNED = rf"([-+]?)\s*{_INT}"
_PLAIN_QUOTIENT = re.compile(rf"([-+]?)\s*(?:(\d+)\s+)?{_INT}\s*/\s*{_SIGNED}", re.ASCII)
_GROUP = r"\{\s*([-+]?)\s*(\d*\.?\d+|\d{1,3}(?:,\d{3})+)\s*\}|\s*([1-9])"
_LATEX_QUOTIENT = re.compile(rf"([-+]?)\s*(?:(\d+)\s*)?\\frac\s*(?:{_GROUP})\s*(?:{_GROUP})", re.ASCII)
_POWER_OF_TEN = re.compile(
    r"(.{1,40}?)\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))"
)
_ONE_NUMBER = re.compile(r"([-+]?)(\d{1,3}(?:, ?\d{3})+|\d+,\d+)", re.ASCII)


def as_number(text: str) -> Fraction | None:
    """Reads an integer, (repeating) decimal, fraction, mixed number or power of ten in normal form, or returns None."""
    if decimal := _DECIMAL.fullmatch(text):
        return _decimal(decimal[1], decimal[2] or "", decimal[3] or "")
    if "/" in text:
        return _plain_quotient(text)
    if "\\frac" in text and (quotient := _LATEX_QUOTIENT.fullmatch(text)):
        return _latex_quotient(quotient)
    if "." in text and (repeating := _REPEATING.fullmatch(text)):
        return _repeating(*repeating.groups())
    if "10" in text and "^" in text and (power := _POWER_OF_TEN.fullmatch(text)):
        factor = as_number(power[1])
        return None if factor is None else factor * Fraction(10) ** int(power[2] or power[3])
    return None


def as_one_number(text: str) -> Fraction | None:
    """Reads a text that could also be a list as one number: `32, 349` and `1000,99`. Returns None for any other."""
    match = _ONE_NUMBER.fullmatch(text)
    if match is None:
        return None
    grouped = re.fullmatch(r"[1-9]\d{0,2}(?:, ?\d{3})+", match[2])
    digits = re.sub(r"[, ]", "", match[2]) if grouped else match[2].replace(",", ".")
    return Fraction(match[1] + digits) if digits.replace(".", "", 1).isdigit() else None


def _decimal(sign: str, whole: str, places: str) -> Fraction | None:
    digits = _digits(whole) + places
    if not digits:
        return None
    value = Fraction(int(digits), 10 ** len(places)) if places else Fraction(int(digits))
    return -value if sign == "-" else value


def _repeating(sign: str, whole: str, places: str, period: str) -> Fraction:
    """Returns 0.1666... for `0.1\\overline{6}`: (16 - 1) / 90."""
    above = int(whole + places + period) - int(whole + places or "0")
    value = Fraction(above, 10 ** len(places) * (10 ** len(period) - 1))
    return -value if sign == "-" else value


def _plain_quotient(text: str) -> Fraction | None:
    match = _PLAIN_QUOTIENT.fullmatch(text)
    if match is None:
        return None
    sign, whole, numerator, sign_below, denominator = match.groups()
    return _mixed(sign, whole, _exact(numerator), _exact(sign_below + denominator))


def _latex_quotient(match: re.Match[str]) -> Fraction | None:
    sign, whole, sign_above, above, digit_above, sign_below, below, digit_below = match.groups()
    if whole and (sign_above or sign_below):
        return None
    numerator, denominator = (sign_above or "") + (above or digit_above), (sign_below or "") + (below or digit_below)
    return _mixed(sign, whole, _exact(numerator), _exact(denominator))


def _mixed(sign: str, whole: str | None, numerator: Fraction | int, denominator: Fraction | int) -> Fraction | None:
    """Returns the quotient, plus the whole number before it: only proper fractions make a mixed number."""
    if not denominator or (whole is not None and not 0 <= numerator < denominator):
        return None
    value = Fraction(numerator, denominator)
    value = value + int(whole) if whole else value
    return -value if sign == "-" else value


def _exact(text: str) -> Fraction | int:
    digits = _digits(text)
    return Fraction(digits) if "." in digits else int(digits)  # int is the faster of the two


def _digits(text: str) -> str:
    return text.replace(",", "").replace(" ", "")
