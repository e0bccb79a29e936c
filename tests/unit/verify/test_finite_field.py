"""The prime field in which expressions are compared."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.verify.expression import image_of, same_expression
from lowmem_rl.verify.finite_field import PRIME, ROOTS

SMALL = st.integers(-50, 50)


def test_the_modulus_is_prime_and_has_the_roots() -> None:
    # Fermat to a few bases, and Lucas' proof: a generator of the group of order PRIME - 1.
    factors = prime_factors(PRIME - 1)
    assert any(
        pow(base, PRIME - 1, PRIME) == 1 and all(pow(base, (PRIME - 1) // q, PRIME) != 1 for q in factors)
        for base in range(2, 200)
    )
    assert all((root * root - number) % PRIME == 0 for number, root in ROOTS.items())


def prime_factors(number: int) -> set[int]:
    factors, divisor = set(), 2
    while divisor * divisor <= number and divisor < 10_000_000:
        while number % divisor == 0:
            factors.add(divisor)
            number //= divisor
        divisor += 1
    return factors | ({number} if number > 1 else set())


@given(SMALL, SMALL, SMALL)
def test_a_product_equals_its_expansion_and_nothing_near_it(a: int, b: int, off: int) -> None:
    product, expansion = f"(x+({a}))(x+({b}))", f"x^2+({a + b})x+({a * b + off})"
    assert same_expression(product, expansion) is (off == 0)


@given(st.integers(1, 10**6), st.integers(2, 46))
def test_squares_move_out_of_roots(outside: int, inside: int) -> None:
    if math.isqrt(inside) ** 2 == inside or image_of(f"\\sqrt{{{inside}}}") is None:
        return
    assert same_expression(f"\\sqrt{{{outside * outside * inside}}}", f"{outside}\\sqrt{{{inside}}}")
    assert not same_expression(f"\\sqrt{{{outside * outside * inside}}}", f"{outside + 1}\\sqrt{{{inside}}}")


@pytest.mark.slow
@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_rationals_are_compared_exactly(one: Fraction, other: Fraction) -> None:
    texts = [f"({x.numerator})/({x.denominator})" for x in (one, other)]
    assert same_expression(*texts) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("i^2", "-1"),
        ("\\sqrt{-3}", "i\\sqrt{3}"),
        ("(1+\\sqrt{5})^2", "6+2\\sqrt5"),
        ("\\frac{a}{b}-\\frac{c}{d}", "\\frac{ad-bc}{bd}"),
        ("\\frac94\\pi", "9\\pi/4"),
        ("\\sin(2x+2)", "\\sin(2(x+1))"),
        ("e^{2x}", "e^{x+x}"),
        ("5!", "120"),
        ("\\binom{5}{2}", "10"),
        ("\\sin^2 x", "(\\sin x)^2"),
        ("9^{9^9}-9^{9^9}", "0"),
        ("\\frac{100!}{98!}", "9900"),
        ("\\frac{2019!}{1010!}", "2019!/1010!"),
        ("\\binom{2010}{2}", "2010*2009/2"),
        ("\\binom{500}{250}", "\\frac{500!}{250!250!}"),
        ("1-\\frac{365!}{340!\\cdot 365^{25}}", "1-\\frac{364!}{340!\\cdot 365^{24}}"),
        ("\\cos\\frac{7\\pi}{6}", "-\\frac{\\sqrt3}{2}"),
        ("\\tan\\frac{5\\pi}{12}", "2+\\sqrt 3"),
        ("x\\sqrt x", "x^{3/2}"),
        ("\\frac{1}{\\sqrt[3]{x}^2}", "\\frac{x}{x^{5/3}}"),
    ],
)
def test_these_expressions_are_equal(one: str, other: str) -> None:
    assert same_expression(one, other) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\frac{1}{1998!}", "\\frac{1}{1997!}"),
        ("\\frac{90!}{45!}", "\\frac{90!}{44!}"),
        ("\\frac{1}{2000!}", "0"),
        ("\\frac{100!}{99!}", "99"),
        ("\\binom{2010}{5}", "\\binom{2010}{6}"),
        ("1-\\frac{365!}{335!\\cdot 365^{30}}", "1-\\frac{364!}{334!\\cdot 365^{30}}"),
    ],
)
def test_large_factorials_are_as_exact_as_small_ones(one: str, other: str) -> None:
    assert same_expression(one, other) is False


@given(st.integers(-200, 200), st.sampled_from(["sin", "cos", "tan"]))
def test_known_angles_have_their_exact_values(sixtieths: int, name: str) -> None:
    image = image_of(f"\\{name}({sixtieths}\\pi/60)")
    if image and not image.opaque and image.near:
        assert abs(image.near.value - getattr(math, name)(sixtieths * math.pi / 60)) < 1e-9


@pytest.mark.parametrize(
    "text", ["\\sin^{-1} x", "\\log 5", "1/2x", "2\\frac12 x", "x!", "5!!", "30000!", "0^0", "1/0", "\\int x", "", "x+"]
)
def test_what_has_two_readings_or_none_is_not_decided(text: str) -> None:
    assert same_expression(text, "7") is None


def test_different_functions_differ_by_a_value_and_equal_ones_are_not_refused() -> None:
    assert same_expression("\\sin x", "\\cos x") is False
    assert same_expression("\\sin^2 x + \\cos^2 x", "1") is None
