"""Are two answers equal."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.verify.equal import equal_answers
from lowmem_rl.verify.normalize import LONGEST_ANSWER, normal_form
from lowmem_rl.verify.number_text import as_number


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("1,000", "1000"),
        ("$5", "5"),
        ("\\$5.00", "5"),
        ("-$5", "-5"),
        ("−5", "-5"),
        ("-0", "0"),
        ("007", "7"),
        (".5", "1/2"),
        ("0.50", "\\frac{1}{2}"),
        ("-\\frac{2}{4}", "-1/2"),
        ("\\dfrac{3}{4}", "0.75"),
        ("\\text{yes}", "yes"),
        ("5.", "5"),
        ("20\\%", "20"),
        ("90^\\circ", "90"),
        ("12,345,678", "12345678"),
        ("1{,}234", "1234"),
        ("42°", "42"),
        ("€42", "42"),
        ("£42", "42"),
        ("42¢", "42"),
        ("- 42", "-42"),
        ("\\frac12", "1/2"),
        ("-\\frac1{2}", "-0.5"),
        ("0.1\\overline{6}", "1/6"),
        ("-1.\\bar{9}", "-2"),
        ("\\varnothing", "∅"),
        ("\\begin{pmatrix}1 & 2 \\\\ 3 & 4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
        ("x = 1, y = 2", "(1, 2)"),
        ("x = 1, x = -1", "x = -1, x = 1"),
    ],
)
def test_different_spellings_of_an_answer_are_equal(given_answer: str, gold: str) -> None:
    assert equal_answers(given_answer, gold)
    assert equal_answers(gold, given_answer)


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("72 clips", "72"),
        ("72\\text{ clips}", "72"),
        ("42 cm^2", "42"),
        ("42\\text{ cm}^{2}", "42"),
        ("42 square feet", "42"),
        ("x=42", "42"),
        ("$x = - 42$", "-42"),
        ("7:30\\text{ p.m.}", "7:30"),
        ("7:30 PM", "7:30 p.m."),
    ],
)
def test_a_unit_or_a_variable_may_be_added_to_a_bare_gold_number(given_answer: str, gold: str) -> None:
    assert equal_answers(given_answer, gold)


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("5 apples", "5 oranges"),
        ("10 a.m.", "10 p.m."),
        ("7:30 AM", "7:30 p.m."),
        ("x=42", "y=42"),
        ("42¢", "$42"),
        ("42 cents", "$42"),
        *[
            (f"42 {words}", "42")
            for words in ("million", "Thousand", "thousandths", "dozen", "i", "x", "pi", "and not", "or 43", "or so")
        ],
    ],
)
def test_words_that_change_the_number_are_not_a_unit(given_answer: str, gold: str) -> None:
    assert not equal_answers(given_answer, gold)


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("", ""),
        ("", "5"),
        ("$", "$"),
        ("5", "-5"),
        ("-$5", "5"),
        ("1,00", "100"),
        ("0.3333", "1/3"),
        ("5,6", "56"),
        ("x = 2, y = 1", "x = 1, y = 2"),
        ("2, 1", "x = 1, y = 2"),
        ("0.\\overline{36}", "0.\\overline{63}"),
        ("0.\\overline{3}", "0.3"),
        ("1e3", "1000"),
        ("１２", "12"),
        ("٣", "3"),
        ("__import__('os')", "0"),
        ("(1, 2)", "__import__('os')"),
        ("5" * (LONGEST_ANSWER + 1), "5" * (LONGEST_ANSWER + 1)),
    ],
)
def test_different_answers_are_unequal(given_answer: str, gold: str) -> None:
    assert not equal_answers(given_answer, gold)


def test_a_division_by_zero_is_not_a_number() -> None:
    assert as_number("1/0") is None
    assert as_number("\\frac{1}{0}") is None


@given(st.text() | st.text(st.sampled_from("0123456789 -.,/\\frac{}$€°=x")), st.text() | st.integers().map(str))
def test_comparing_never_fails(given_answer: str, gold: str) -> None:
    assert equal_answers(given_answer, gold) in (True, False)


@given(st.integers(), st.integers(min_value=1))
def test_every_rational_is_read_exactly(numerator: int, denominator: int) -> None:
    assert as_number(f"{numerator}/{denominator}") == Fraction(numerator, denominator)
    assert equal_answers(f"{numerator:,}", str(numerator))


@pytest.mark.parametrize("text", ["{" * 100_000, "1" * 100_000, "\\text{" * 20_000, "9/" * 50_000, "5 " * 50_000])
def test_hostile_answers_are_compared_within_a_second(text: str) -> None:
    began = time.thread_time()
    assert not equal_answers(text, text)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(("sign", "unit"), [("5%", "5 cm"), ("$5", "5 kg"), ("25°", "25\\text{ miles}")])
def test_a_sign_is_no_unit(sign: str, unit: str) -> None:
    assert not equal_answers(sign, unit)
    assert not equal_answers(unit, sign)


@pytest.mark.parametrize(
    ("given", "gold", "verdict"),
    [
        ("12\\,34", "1234", False),
        ("2\\;5", "25", False),
        ("12\\,345", "12345", True),
        ("1\\,000\\,000", "1000000", True),
        ("11,\\!111", "11111", True),
    ],
)
def test_a_space_joins_only_groups_of_three_digits(given: str, gold: str, verdict: bool) -> None:
    assert equal_answers(given, gold) is verdict


@given(st.text("-+0123456789()[],./: ", max_size=20))
def test_the_quick_way_for_numbers_has_the_same_result(text: str) -> None:
    assert normal_form(f"\N{ZERO WIDTH SPACE}{text}") == normal_form(text)
