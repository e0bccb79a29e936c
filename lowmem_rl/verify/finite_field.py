"""Numbers and variables as residues modulo a prime: exact equality without algebra.

Rationals, variables, π, e, i and square roots map to residues by a ring homomorphism: variables, π and e go to fixed
residues, √q to a root of q, which exists for q = -1 and every prime q < 50. Equal expressions have equal images, so
different images prove two expressions different; equal images prove them equal except with a probability of about
degree / 2^61 (Schwartz-Zippel). Only residues are computed: 9^9^9 costs a few products.

A factorial is the product of its residues, so 2019!/1010! is as exact as 6/2. The value of a function (`sin`, `ln`, a
root) is a residue of its own, the same for the same argument. Such an image is `opaque`: equal ones still prove
equality, but different ones prove nothing, since sin² + cos² = 1. For these an approximate value at one point shows
what is clearly different. Sines of multiples of 15° and of 36° are not opaque: they are sums of square roots.
"""

import cmath
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import Any

PRIME = 2305843009213245121
"""The largest prime below 2^61 that is 1 modulo 8 and has square roots of all primes below 50."""

ROOTS = {
    -1: 827023950881031126, 2: 320016498044624403, 3: 1116553044231032126, 5: 45140675686599530,
    7: 980175392781082838, 11: 917301892121914325, 13: 1000194954522550514, 17: 1139758034311809714,
    19: 191901901086679521, 23: 10487519397592379, 29: 404034219211850549, 31: 776784678838983769,
    37: 1092741617497190973, 41: 1133369851258535870, 43: 423204227996188470, 47: 447766123485508835,
}  # fmt: skip

MOST_BITS = 512
"""Of a numerator or denominator: larger rationals are not kept next to their image."""

CLEARLY = 1e-6
"""A difference that rounding cannot cause, relative to the largest intermediate value."""

LARGEST_FACTORIAL = 20_000
"""Its image takes 2 ms."""

_CONSTANTS = {"pi": math.pi, "e": math.e}


class UnknownImage(Exception):
    """The field cannot represent the expression."""


@dataclass(frozen=True, slots=True)
class Approximation:
    """A value at one point, and the largest magnitude of the intermediate values."""

    value: complex
    largest: float


@dataclass(frozen=True, slots=True)
class Residue:
    """A residue; the rational it represents, if of reasonable size; an approximation, if there is one."""

    residue: int
    rational: Fraction | None = None
    near: Approximation | None = None
    opaque: bool = False


def same_image(one: Residue, other: Residue) -> bool | None:
    """Returns whether two images have the same value; None if they do not decide it."""
    if one.rational is not None and other.rational is not None:
        return one.rational == other.rational
    if one.residue == other.residue:
        return True
    # Whether 1.414214 may be given for an irrational number is not decided by equality.
    if _may_be_rounded(one.rational) or _may_be_rounded(other.rational):
        return None
    return False if not (one.opaque or other.opaque) or _clearly_different(one, other) else None


def rational(value: Fraction) -> Residue:
    """Returns the image of a rational number. Raises `UnknownImage` if `PRIME` divides its denominator."""
    below = value.denominator % PRIME
    if not below:
        raise UnknownImage
    image = value.numerator % PRIME * pow(below, -1, PRIME) % PRIME
    near = Approximation(complex(float(value)), abs(float(value))) if _bits(value) <= 300 else None
    return Residue(image, _kept(value), near)


def residue(number: int) -> Residue:
    """Returns the image of a point of the field; a small one is the integer itself."""
    return rational(Fraction(number)) if number < 2 else Residue(number)


def symbol(name: str) -> Residue:
    """Returns the image of a variable, of `pi`, of Euler's `e` or of the imaginary `i`."""
    if name == "i":
        return Residue(ROOTS[-1], None, Approximation(1j, 1))
    point = _CONSTANTS.get(name) or 1.1 + hashed("at", name) / PRIME
    return Residue(hashed("symbol", name), None, Approximation(point, abs(point)))


def negate(value: Residue) -> Residue:
    """Returns the image of a value with the other sign."""
    return multiply(rational(Fraction(-1)), value)


def add(left: Residue, right: Residue) -> Residue:
    """Returns the image of a sum."""
    return _combined(operator.add, left, right)


def multiply(left: Residue, right: Residue) -> Residue:
    """Returns the image of a product."""
    return _combined(operator.mul, left, right)


def _combined(combine: Callable[[Any, Any], Any], left: Residue, right: Residue) -> Residue:
    exact = combine(left.rational, right.rational) if left.rational is not None and right.rational is not None else None
    near = approximated(combine(left.near.value, right.near.value), left, right) if left.near and right.near else None
    residue = combine(left.residue, right.residue) % PRIME
    return Residue(residue, _kept(exact), near, left.opaque or right.opaque)


def divide(left: Residue, right: Residue) -> Residue:
    """Returns a quotient. Raises `UnknownImage` for a division by zero."""
    if not right.residue:
        raise UnknownImage
    near = None
    if right.near and abs(right.near.value) > CLEARLY * right.near.largest:
        near = Approximation(1 / right.near.value, max(right.near.largest, 1 / abs(right.near.value)))
    inverse = 1 / right.rational if right.rational else None
    return multiply(left, Residue(pow(right.residue, -1, PRIME), inverse, near, right.opaque))


def power(base: Residue, exponent: Residue) -> Residue:
    """Returns a power: exact for an integer, opaque for most others. Raises `UnknownImage` for 0^0 and 1/0."""
    number = exponent.rational
    if number is None or abs(number) > PRIME:
        return Residue(hashed("power", base.residue, exponent.residue), None, _near_power(base, exponent), opaque=True)
    if number <= 0 and not base.residue:
        raise UnknownImage
    if number.denominator > 1:
        return _fractional_power(base, exponent, number)
    small = base.rational is not None and abs(number) * max(1, _bits(base.rational)) <= MOST_BITS
    exact = base.rational ** int(number) if small and base.rational is not None else None
    return Residue(pow(base.residue, int(number), PRIME), exact, _near_power(base, exponent), base.opaque)


def _fractional_power(base: Residue, exponent: Residue, number: Fraction) -> Residue:
    """Returns b^(n + k/q) as b^n times the k-th power of the q-th root: equal for every spelling of the exponent."""
    whole, rest = divmod(number.numerator, number.denominator)
    radical = root(base) if number.denominator == 2 else _opaque_root(base, number.denominator)
    image = multiply(power(base, rational(Fraction(whole))), power(radical, rational(Fraction(rest))))
    return image if image.near else replace(image, near=_near_power(base, exponent))


def root(value: Residue) -> Residue:
    """Returns the square root: of a rational a/b as √(ab)/b, prime by prime; else an opaque residue."""
    number = value.rational
    parts = None if number is None else _square_and_rest(abs(number.numerator) * number.denominator)
    if number is None or parts is None:
        return _opaque_root(value, 2)
    outside, primes = parts
    residue = math.prod((ROOTS[prime] for prime in primes), start=ROOTS[-1] if number < 0 else 1) % PRIME
    exact = rational(Fraction(outside, number.denominator))
    image = multiply(exact, Residue(residue, None if primes or number < 0 else Fraction(1)))
    near = cmath.sqrt(float(number)) if _bits(number) <= MOST_BITS else None
    return Residue(image.residue, image.rational, Approximation(near, abs(near)) if near is not None else None)


def _opaque_root(value: Residue, degree: int) -> Residue:
    near = _near_power(value, rational(Fraction(1, degree)))
    return Residue(hashed("root", value.residue, degree), None, near, opaque=True)


@lru_cache(maxsize=256)
def factorial(number: int) -> Residue:
    """Returns the image of n!. Raises `UnknownImage` above `LARGEST_FACTORIAL`."""
    if number > LARGEST_FACTORIAL:
        raise UnknownImage
    if number <= 100:
        return rational(Fraction(math.factorial(number)))
    image = 1
    for factor in range(2, number + 1):
        image = image * factor % PRIME
    return Residue(image)


def binomial(above: int, below: int) -> Residue:
    """Returns the image of a binomial coefficient. Raises `UnknownImage` as `factorial` does."""
    if above <= 200 or below > above:
        return rational(Fraction(math.comb(above, below)))
    return divide(factorial(above), multiply(factorial(below), factorial(above - below)))


def _near_power(base: Residue, exponent: Residue) -> Approximation | None:
    if base.near is None or exponent.near is None:
        return None
    value, by = base.near.value, exponent.near.value
    is_integer = exponent.rational is not None and exponent.rational.denominator == 1
    # A root of a negative number has branches, and 200 keeps powers far from overflow.
    if abs(by) > 200 or not (is_integer or (value.imag == 0 and value.real > 0)) or not value:
        return None
    found = computed(lambda x: x**by, value)
    is_unsure = abs(value) < CLEARLY * base.near.largest
    return None if found is None or is_unsure else approximated(found, base, exponent)


def computed(compute: Callable[[complex], complex], value: complex) -> complex | None:
    try:
        return complex(compute(value))
    except (OverflowError, ZeroDivisionError, ValueError):
        return None


def approximated(value: complex, *parts: Residue) -> Approximation | None:
    largest = max(abs(value), *(part.near.largest for part in parts if part.near))
    return Approximation(value, largest) if largest < 1e100 else None


def _clearly_different(one: Residue, other: Residue) -> bool:
    if one.near is None or other.near is None:
        return False
    return abs(one.near.value - other.near.value) > CLEARLY * max(one.near.largest, other.near.largest)


def _may_be_rounded(value: Fraction | None) -> bool:
    """Returns whether a rational is a decimal of four places or more."""
    return value is not None and value.denominator > 1000 and pow(10, MOST_BITS, value.denominator) == 0


def _kept(value: Fraction | None) -> Fraction | None:
    return value if value is not None and _bits(value) <= MOST_BITS else None


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _square_and_rest(number: int) -> tuple[int, list[int]] | None:
    """Returns s and the primes p with number = s²·Πp, or None if a large prime is left over."""
    outside, primes = 1, []
    for prime in (q for q in ROOTS if q > 0):
        times = 0
        while number and number % prime == 0:
            number, times = number // prime, times + 1
        outside *= prime ** (times // 2)
        primes += [prime] * (times % 2)
    rest = math.isqrt(number)
    return (outside * rest, primes) if rest * rest == number else None


@lru_cache(maxsize=4096)
def hashed(*parts: str | int) -> int:
    """Returns the residue of a name: the same in every process."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=16).digest()) % PRIME
