"""Functions of residues: exact at known angles and rational arguments, else opaque residues of their own."""

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lowmem_rl.verify.finite_field import (
    CLEARLY,
    PRIME,
    Approximation,
    Residue,
    add,
    approximated,
    computed,
    divide,
    hashed,
    negate,
    power,
    rational,
    root,
    symbol,
)

FUNCTIONS: dict[str, Callable[[complex], complex] | None] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x),
    "arcsin": None, "arccos": None, "arctan": cmath.atan, "ln": cmath.log,
    "exp": cmath.exp,
    "log": None,  # base e or 10: readers differ
}  # fmt: skip
_OF_REALS: dict[str, Callable[[Any], Any]] = {"abs": abs, "floor": math.floor, "ceil": math.ceil}
_COSINES: dict[int, tuple[int, int, int]] = {
    0: (4, 0, 0), 5: (0, 6, 2), 10: (0, 3, 3), 12: (1, 5, 0), 15: (0, 2, 2), 20: (2, 0, 0), 24: (-1, 5, 0),
    25: (0, 6, -2), 30: (0, 0, 0),
}  # fmt: skip
"""k -> (a, b, c): the cosine of k π/60 is (a + √b ± √|c|) / 4, with the sign of c."""
_ONE = Residue(1, Fraction(1), Approximation(1, 1))


def function(name: str, argument: Residue) -> Residue:
    """Returns a function's value: exact if it is known, else an opaque residue.

    It has an approximation if name and branch are unambiguous.
    """
    if name in _OF_REALS:
        return _of_real(name, argument)
    if exact := power(symbol("e"), argument) if name == "exp" else _at_known_angle(name, argument):
        return exact
    compute, near = FUNCTIONS[name], None
    # Below 50 rounding stays small; the logarithm of other than positive numbers has branches.
    if compute and argument.near and abs(value := argument.near.value) < 50:
        found = computed(compute, value) if name != "ln" or (value.imag == 0 and value.real > CLEARLY) else None
        near = approximated(found, argument) if found is not None else None
    return Residue(hashed(name, argument.residue), None, near, opaque=True)


def _of_real(name: str, argument: Residue) -> Residue:
    """Returns |x|, or x rounded to an integer; near an integer, rounding decides the side: no approximation."""
    if argument.rational is not None:
        return rational(Fraction(_OF_REALS[name](argument.rational)))
    residue, near = argument.residue, None
    if argument.near and not (value := argument.near.value).imag:
        is_sure = name == "abs" or abs(value.real - round(value.real)) > CLEARLY * argument.near.largest
        near = approximated(complex(_OF_REALS[name](value.real)), argument) if is_sure else None
    return Residue(hashed(name, min(residue, PRIME - residue) if name == "abs" else residue), None, near, opaque=True)


def _at_known_angle(name: str, angle: Residue) -> Residue | None:
    """Returns a trigonometric function's exact value, or None if it is not a sum of square roots."""
    if name not in {"sin", "cos", "tan", "sec", "csc", "cot"}:
        return None
    # An angle's image is k π/60; k is small for no other angle, except by an accident of probability 2^-30.
    multiple = angle.residue * 60 * pow(symbol("pi").residue, -1, PRIME) % PRIME
    if multiple > 2**30 and (multiple := multiple - PRIME) < -(2**30):
        return None
    cosine, sine = _cosine(multiple % 120), _cosine((30 - multiple) % 120)
    above, below = {
        "sin": (sine, _ONE), "cos": (cosine, _ONE), "tan": (sine, cosine),
        "csc": (_ONE, sine), "sec": (_ONE, cosine), "cot": (cosine, sine),
    }[name]  # fmt: skip
    return divide(above, below) if above and below else None


@lru_cache(maxsize=120)
def _cosine(sixtieths: int) -> Residue | None:
    """Returns the cosine of k π/60 for 0 <= k < 120, or None if it takes nested roots."""
    if sixtieths > 60:
        return _cosine(120 - sixtieths)
    if sixtieths > 30:
        return None if (mirrored := _cosine(60 - sixtieths)) is None else negate(mirrored)
    if sixtieths not in _COSINES:
        return None
    number, first, second = _COSINES[sixtieths]
    one, other = (root(rational(Fraction(abs(inside)))) for inside in (first, second))
    roots = add(one, other if second >= 0 else negate(other))
    return divide(add(rational(Fraction(number)), roots), rational(Fraction(4)))
