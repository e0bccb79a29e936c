"""The verdict on an answer: each choice in the table of `api.py`."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.errors import TaskError
from lowmem_rl.verify import check_gold, verify
from lowmem_rl.verify.equal import compare_exactly
from lowmem_rl.verify.normalize import LONGEST_ANSWER


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("10%", "10"),
        ("10%", "0.1"),
        ("2/4", "1/2"),
        ("033", "33"),
        ("+7", "7"),
        ("1 1/2", "3/2"),
        ("-1\\frac12", "-1.5"),
        ("32, 349", "32349"),
        ("32 349", "32349"),
        ("1000,99", "1000.99"),
        ("1.2 \\times 10^{3}", "1200"),
        ("10, 4, -2", "4, 10, -2"),
        ("\\{1, 2\\}", "\\{2, 1\\}"),
        ("1 or 2", "1, 2"),
        ("x = 1 \\text{ or } x = 2", "1, 2"),
        ("x = 4, y = -1", "(4, -1)"),
        ("\\left( 0.5, \\frac{3}{4} \\right]", "(1/2, 3/4]"),
        ("(3, \\infty) \\cup [0, 1)", "[0, 1) \\cup (3, \\infty)"),
        ("\\begin{bmatrix} 1 & 0.5 \\end{bmatrix}", "\\begin{pmatrix} 1 & 1/2 \\end{pmatrix}"),
        ("90 degrees", "90^\\circ"),
        ("5 dollars", "$5"),
        ("15 \\text{ square centimeters}", "15\\mbox{ cm}^2"),
        ("x = 5", "5"),
        ("5", "x = 5"),
        ("14 + 6 = 20", "20"),
        ("20 = 14 + 6", "20"),
        ("20", "14 + 6"),
        ("-(1/2)", "-0.5"),
        ("120/6", "20"),
        ("m + n = 17", "17"),
        ("1112_3", "1112_{3}"),
        ("(C)", "C"),
        ("\\text{yes}", "Yes"),
        ("$\\boxed{5}$", "5"),
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("\\frac{1}{\\sqrt 3}", "\\frac{\\sqrt{3}}{3}"),
        ("(x-1)(x+1)", "x^2-1"),
        ("4^{1/3}", "\\sqrt[3]{4}"),
        ("2\\cos a\\sin b", "2\\sin b\\cos a"),
        ("4x+8y=6", "2x+4y-3=0"),
        ("5 \\le x", "x >= 5"),
    ],
)
def test_these_are_equal_without_any_worker(given_answer: str, gold: str) -> None:
    assert compare_exactly(given_answer, gold) is True


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("", ""),
        ("14 + 6", "20"),
        ("x = 14 + 6", "20"),
        ("14 + 6 = 14 + 6", "20"),
        ("(14 + 6) stickers", "20"),
        ("2(10)", "20"),
        ("\\frac{40}{2} + 0", "20"),
        ("1/4 + 1/4", "1/2"),
        ("2^4 + 4", "20"),
        ("(1 + 2, 4)", "(3, 4)"),
        ('"14 + 6"', "20"),
        ("14 + + + 6", "20"),
        ("\\lfloor 14 + 6 \\rfloor", "20"),
        ("\\boxed{}", "\\boxed{}"),
        ("300%", "3"),
        ("0.333333", "1/3"),
        ("1.0001", "1"),
        ("1 3/2", "5/2"),
        ("1 1/2", "11/2"),
        ("1,00", "100"),
        ("5,6", "56"),
        ("(1, 3, 2)", "(1, 2, 3)"),
        ("(1, 3, 2)", "[1, 2, 3]"),
        ("(-3, 2)", "[-3, 2]"),
        ("(0, 9)", "[0, 9)"),
        ("(2, -\\infty)", "(2, \\infty)"),
        ("1", "1, 2"),
        ("1, 2", "1"),
        ("42 million", "42"),
        ("42 or 43", "42"),
        ("42x", "42"),
        ("5 oranges", "5 apples"),
        ("42 cents", "$42"),
        ("10 p.m.", "10 a.m."),
        ("y = 5", "x = 5"),
        ("x+y-z+2=0", "5x-7y+11z+4=0"),
        ("1112122_3", "1112112_3"),
        ("12_4", "12_3"),
        ("D", "C"),
        ("4:30", "5:30"),
        ("3\\sqrt{2}", "2\\sqrt{3}"),
        ("(x-1)^2", "x^2-1"),
        ("1+1/e", "1-1/e"),
        ("3-4i", "3+4i"),
        ("\\ln 5", "\\ln 4"),
        ("x < 5", "x > 5"),
        ("x \\ge 5", "x > 5"),
    ],
)
def test_these_are_unequal_without_any_worker(given_answer: str, gold: str) -> None:
    assert compare_exactly(given_answer, gold) is False


def test_the_fast_path_returns_none_for_what_it_cannot_decide() -> None:
    for pair in (("\\sec^2 x", "\\tan^2 x + 1"), ("1.414214", "\\sqrt{2}"), ("1/2x", "x/2"), ("x^2=4", "x^3=8")):
        assert compare_exactly(*pair) is None


@pytest.mark.parametrize(
    ("gold", "finding"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("\\boxed{}", "empty"),
        ("$$", "empty"),
        ("\\text{ }", "empty"),
        ("5" * (LONGEST_ANSWER + 1), "longer"),
        ("\\frac{1}{2", "braces"),
        ("5\0", "control"),
    ],
)
def test_a_gold_answer_that_nothing_can_match_is_refused(gold: str, finding: str) -> None:
    with pytest.raises(TaskError, match=finding):
        check_gold(gold)


@pytest.mark.parametrize("gold", ["5", "[0, 1)", "\\{1, 2\\}", "Evelyn", "\\frac{1}{2}", "10\\%", "$5"])
def test_a_gold_answer_that_is_accepted_is_paid_for_itself(gold: str) -> None:
    check_gold(gold)
    assert verify(gold, gold)


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*×·−"), st.sampled_from(["{}", "${}$", "({})"]))
def test_a_repeated_question_is_no_answer(one: int, other: int, sign: str, form: str) -> None:
    result = {"+": one + other, "-": one - other, "−": one - other}.get(sign, one * other)
    assert not verify(form.format(f"{one} {sign} {other}"), str(result))
    assert not verify(form.format(f"{one}{sign}{other}"), str(result))
    assert verify(f"{one} {sign} {other} = {result}", str(result))


@pytest.mark.parametrize(
    ("given_answer", "gold"),
    [
        ("10^{6}", "1000000"),
        ("5!", "120"),
        ("\\sqrt{400}", "20"),
        ("\\cos(\\pi/3)", "1/2"),
        ("\\log_2(8)", "3"),
        ("8^{2/3}", "4"),
        ("(1/2)^3", "1/8"),
        ("5/2", "2.5"),
        ("1/2 \\times 10^3", "500"),
    ],
)
def test_a_power_a_root_and_a_function_count_as_numbers(given_answer: str, gold: str) -> None:
    assert verify(given_answer, gold)


@given(st.text(), st.text() | st.text(st.sampled_from("{}()[]\\,;|=<>_^$%0123456789.xei fracsqrtinboxed\0\ud800")))
def test_exact_comparison_never_fails(one: str, other: str) -> None:
    assert compare_exactly(one, other) in (True, False, None)
    assert compare_exactly(other, one) in (True, False, None)


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "{",
        "\\frac",
        "\\sqrt{",
        "^",
        "-",
        "x",
        "1,",
        "\\cup",
        "!",
        "5 ",
        "=",
        "\\text{",
        "|x|<",
        "x mod 7, ",
        "½",
        "₂",
        "= mod ",
        "x<1 \\lor ",
        "sin(°",
        "\\begin{array}",
        "abs(",
        "\\{x|x>1",
        "(1,2)\\cup ",
        "20000!",
        "\\sin 1\\degree ",
        "\\neq 3,",
        "word+",
        "<1,",
        "x^{1/3}",
    ],
)
def test_repetition_up_to_the_cap_is_compared_within_a_second(unit: str) -> None:
    text = (unit * LONGEST_ANSWER)[:LONGEST_ANSWER]
    began = time.thread_time()
    compare_exactly(text, text + "1")
    compare_exactly(text[1:], "x^2+1")
    assert time.thread_time() - began < 1


def test_without_math_verify_the_rest_is_compared_as_text() -> None:
    program = r"""
import sys
sys.modules["math_verify"] = None
from lowmem_rl.verify import verify
assert verify("1/2", "0.5") and verify(r"\sec^2 x", r"\sec^2 x")
assert not verify(r"\sec^2 x", r"\tan^2 x + 1")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
