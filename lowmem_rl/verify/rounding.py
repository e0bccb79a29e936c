"""Is a decimal the rounded form of an exact value, as in `\\frac{2}{3} \\approx 0.667`."""

import re
from fractions import Fraction

from lowmem_rl.verify.expression import image_of, variables
from lowmem_rl.verify.number_text import as_number

_DECIMAL = re.compile(r"-?[\d, ]*\.?\d+", re.ASCII)


def is_rounding(exact: str, rounded: str) -> bool:
    """Returns whether a decimal is a constant rounded, or cut off, at its last place; True for no constant."""
    decimal = as_number(rounded) if _DECIMAL.fullmatch(rounded) else None
    if decimal is None:
        return False
    exact = exact.rpartition("=")[2].strip()
    value = as_number(exact)
    if value is None:
        image = image_of(exact)
        if variables(exact) or image is None or image.near is None:
            return True
        value = Fraction(image.near.value.real)
    unit = Fraction(1, 10 ** len(rounded.partition(".")[2]))
    return abs(value - decimal) <= unit / 2 or 0 <= abs(value) - abs(decimal) < unit
