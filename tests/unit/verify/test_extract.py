"""Finding the answer in a completion."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.verify.extract import last_box, lenient_answer, strict_answer

# 100 kB each, made to make a careless pattern or a recursion slow.
HOSTILE = {
    "braces": "{" * 100_000,
    "closed braces": "\\boxed{" + "{" * 50_000 + "}" * 50_000,
    "nested boxes": "\\boxed{" * 14_000 + "5" + "}" * 14_000,
    "unclosed boxes": "\\boxed{5 " * 12_000,
    "box heads": "\\boxed" * 16_000,
    "spaces": "\\boxed" + " " * 100_000 + "{",
    "escapes": "\\boxed{" + "\\" * 100_000 + "}",
    "hashes": "#" * 100_000,
    "digits": "1" * 100_000,
    "commas": "1," * 50_000,
    "minus signs": "-" * 100_000,
    "fractions": "\\frac{" * 16_000,
    "answer is": "answer is " * 10_000,
    "think tags": "<think>" * 14_000,
    "nul": "\0" * 100_000,
    "surrogates": "\ud800" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_read_within_a_second(text: str) -> None:
    began = time.thread_time()
    strict_answer(text)
    lenient_answer(text)
    assert time.thread_time() - began < 1


@given(st.text(st.sampled_from("{}\\boxed<think></think>#answer is: 0123456789.,/-−$\n\0\ud800")))
def test_reading_an_answer_never_fails(text: str) -> None:
    for answer in (strict_answer(text), lenient_answer(text)):
        assert answer is None or isinstance(answer, str)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{5}", "5"),
        ("first \\boxed{4}, no: \\boxed{5}", "5"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{ 5 } and \\boxed{6", "5"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\fbox {7}", "7"),
        ("<think>\\boxed{4}</think>\\boxed{5}", "5"),
        ("<think></think>\\boxed{}", ""),
        ("", None),
        ("5", None),
        ("boxed{5}", None),
        ("\\boxed{5", None),
        ("<think>\\boxed{5}</think>", None),
        ("<think>it must be \\boxed{5}", None),
        ("</think><think>\\boxed{5}", None),
    ],
)
def test_the_strict_answer_is_the_last_balanced_box_after_the_thoughts(completion: str, answer: str | None) -> None:
    assert strict_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The answer is 5.", "5"),
        ("Answer: $1,000", "$1,000"),
        ("reasoning\n#### 72", "72"),
        ("#### 72\nThe answer is 5", "72"),
        ("#### 72 then \\boxed{5}", "5"),
        ("3 + 4 = 7", "7"),
        ("so 48-24 is 10-5", "5"),
        ("Jana has 12 - 6 apples.", "12 - 6"),
        ("So 3 × 4 apples", "3 × 4"),
        ("I get 12 - 6 = 6", "6"),
        ("In part 2 **5**", "5"),
        ("it loses -$5", "-$5"),
        ("it loses −5", "−5"),
        ("about .5", ".5"),
        ("wait...5", "5"),
        ("the answer is $\\frac{1}{2}$", "\\frac{1}{2}"),
        ("1,000,", "1,000"),
        ("\\boxed{} the answer is 5", "5"),
        ("<think>it is 5", "5"),
        ("<think>it is 5</think>", None),
        ("", None),
        ("none", None),
        ("The answer is 7 * 6 = 42", "42"),
        ("The answer is 42. Check: 7 * 6 = 42, and 1 = 1", "42"),
        ("The answer is approx. 42", "42"),
        ("The answer is 8 = 2^3", "2^3"),
        ("The answer is (x = 5)", "5"),
        ("The answer is [1, 2)", "[1, 2)"),
        ("The answer is 1 1/2 cups", "1 1/2 cups"),
        ("It takes 2\\frac{1}{2} cups", "2\\frac{1}{2}"),
        ("答案是 5 个苹果", "5"),
        ("Ответ: 5", "5"),
        ("The answer is - 42", "-42"),
        ("The answer is \\frac12", "\\frac12"),
        ("It costs -€42", "-€42"),
        ("in all 1{,}234 trees", "1{,}234"),
        ("The correct option is (B).", "(B)"),
        ("The **first** factor is even, so it is **odd**.", "odd"),
        ("It is **odd**, by 1", "1"),
    ],
)
def test_the_lenient_answer_is_found_in_any_common_form(completion: str, answer: str | None) -> None:
    assert lenient_answer(completion) == answer


def test_thoughts_that_never_end_hide_the_box_however_long_they_are() -> None:
    assert strict_answer("<think>" + "x" * 120_000 + "\\boxed{42}") is None
    assert strict_answer("<think></think>" + "x" * 120_000 + "\\boxed{42}") == "42"


def test_only_the_end_of_a_huge_completion_is_read() -> None:
    assert lenient_answer("\\boxed{5}" + " " * 200_000) is None
    assert last_box(" " * 200_000 + "\\boxed{5}") == "5"
