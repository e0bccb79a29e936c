"""An exact value followed by its rounded one."""

import pytest

from lowmem_rl.verify import verify
from lowmem_rl.verify.extract import lenient_answer


def is_paid(gold: str, completion: str) -> bool:
    answer = lenient_answer(completion)
    return answer is not None and verify(answer, gold)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("\\frac{\\sqrt{3}}{3}", "\\boxed{\\frac{\\sqrt{3}}{3} \\approx 0.577}"),
        ("\\frac{2}{3}", "\\boxed{\\frac{2}{3} \\approx 0.667}"),
        ("\\frac{2}{3}", "The answer is 2/3 ≈ 0.667."),
        ("\\sqrt{2}", "The answer is $\\sqrt{2} \\approx 1.414$."),
        ("\\frac{2}{3}", "$x = \\frac{2}{3} \\approx 0.667$"),
        ("\\frac{1}{3}", "\\boxed{\\frac{1}{3} \\approx 0.33 \\text{ cm}}"),
        ("11", "$x \\approx 11$"),
        ("0.667", "\\boxed{\\frac{2}{3} \\approx 0.667}"),
        ("1.414", "\\boxed{\\sqrt{2} \\approx 1.414}"),
        ("\\frac{1}{3} \\approx 0.333", "\\boxed{1/3}"),
        ("\\ln 2", "The answer is ln 2 ≈ 0.693"),
        ("3.14", "\\boxed{\\approx 3.14}"),
        ("\\frac{2}{3}", "\\boxed{\\frac{2}{3} \\text{ (approximately } 0.667)}"),
        ("12.3", "$f(2) \\approx 12.3$"),
        ("100\\pi", "\\boxed{100\\pi \\text{ or about } 314}"),
        ("\\frac{2}{3}", "It is $\\frac{2}{3} \\approx 0.667$."),
        ("\\frac{2}{3}", "So the probability is 2/3 ≈ 0.667."),
        ("\\frac{5}{7}", "\\boxed{\\frac{5}{7}\\approx 0.714}"),
        ("\\sqrt{5}", "\\boxed{\\sqrt{5}\\approx2.236}"),
        ("\\frac{22}{7}", "The answer is 22/7 ≈ 3.14."),
        ("\\frac{\\pi}{4}", "\\boxed{\\frac{\\pi}{4} \\approx 0.785 \\text{ units}}"),
        ("\\frac{1}{7}", "\\boxed{\\frac{1}{7} \\text{ or approximately } 0.143}"),
        ("12\\pi", "\\boxed{12\\pi \\approx 37.7 \\text{ cm}^2}"),
        ("5!", "\\boxed{5! \\approx 120}"),
        ("1.0986", "$$x = \\ln 3 \\approx 1.0986$$"),
        ("\\frac{5}{7}", "\\boxed{x = \\frac{5}{7} \\approx 0.714}"),
        ("2^{10}", "\\boxed{2^{10} \\approx 1000}"),
        ("1024", "\\boxed{2^{10} = 1024 \\approx 1000}"),
        ("\\frac{5}{7}", "The answer is $\\frac57$, approximately 0.714."),
        ("\\frac{5}{7}", "The answer is $\\frac57$, which is approximately 0.714."),
    ],
)
def test_the_exact_value_counts_and_so_does_its_rounded_one(gold: str, completion: str) -> None:
    assert is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("7", "\\boxed{5 \\approx 7}"),
        ("0.577", "\\boxed{\\frac{2}{3} \\approx 0.577}"),
        ("\\frac{2}{3}", "\\boxed{0.667}"),
        ("\\frac{1}{3}", "\\boxed{\\frac{2}{3} \\approx \\frac{1}{3}}"),
        ("6", "\\boxed{2\\pi \\approx 6.28}"),
        ("\\frac{2}{3}", "\\boxed{\\frac{1}{3} \\approx 0.333}"),
        ("\\pi", "\\boxed{3.14 \\approx \\pi}"),
        ("1000", "\\boxed{2^{10} \\approx 1000}"),
        ("\\frac{5}{7}", "\\boxed{\\frac{5}{8} \\approx 0.714}"),
        ("0.714", "\\boxed{\\frac{5}{8} \\approx 0.714}"),
        ("3", "\\boxed{2 \\approx 3}"),
        ("3.14", "\\boxed{\\sqrt{2} \\approx 3.14}"),
    ],
)
def test_a_value_that_is_not_the_rounded_one_is_wrong(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)


@pytest.mark.parametrize(
    ("given", "gold"), [("\\pi \\approx 3.2", "3.2"), ("\\frac{1}{7} \\approx 0.15", "0.15"), ("3.4 \\approx 4", "4")]
)
def test_a_decimal_that_is_neither_rounded_nor_cut_off_counts_for_nothing(given: str, gold: str) -> None:
    assert not verify(given, gold)
