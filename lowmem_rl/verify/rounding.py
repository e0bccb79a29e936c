"""Is a decimal the rounded form of an exact value, as in `\\frac{2}{3} \\approx 0.667`."""

import re
from fractions import Fraction

from lowmem_rl.verify.expression import image_of, variables
from lowmem_rl.verify.number_text import as_number

_DECIMAL = re.compile(r"-?[\d, ]*\.?\d+", re.ASCII)


def is_rounding(exact: str, rounded: str) -> bool:
    """Returns whether a decimal is less than one unit of its last place from a constant; True for no constant."""
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
    return abs(value - decimal) < Fraction(1, 10 ** len(rounded.partition(".")[2]))
