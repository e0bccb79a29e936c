"""Answers in the texts that data sets publish, by each reading."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.tasks.gold_answer import AnswerForm, option_of, take_answer


def test_the_setting_offers_each_form() -> None:
    assert get_args(TaskConfig.model_fields["answer"].annotation) == get_args(AnswerForm)


@pytest.mark.parametrize(
    ("gold", "text", "form"),
    [
        ("Ann sold 48/2 = <<48/2=24>>24 clips.\n#### 72", "72", "after_hashes"),
        ("So it is 25.\n#### 25\nThe answer is: 25", "25", "after_hashes"),
        ("Then #### -1,200 ", "-1,200", "after_hashes"),
        ("First $\\boxed{3}$, then $x=\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", "last_box"),
        ("Thus the sum is $\\boxed 5.$", "5", "last_box"),
        ("\\boxed{\\text{even}}", "\\text{even}", "last_box"),
        ("We halve it. The answer is: \\frac{1}{2}", "\\frac{1}{2}", "after_answer_is"),
        ("Final Answer: The final answer is $24$. I hope it is correct.", "24", "after_answer_is"),
        ("The answer to the second question is 3.5.", "3.5", "after_answer_is"),
        ("**Answer:** 34", "34", "after_answer_is"),
        ("Ans: 34", "34", "after_answer_is"),
        ("The answer:\n\n34", "34", "after_answer_is"),
        ("两数相加，答案是34。", "34", "after_answer_is"),
        ("So the correct option is (B).", "(B)", "after_answer_is"),
        ("The answer would be 5 apples. He eats them.", "5 apples", "after_answer_is"),
        ("42", "42", "whole"),
        ("\\frac{3}{4}", "\\frac{3}{4}", "whole"),
        ("##### Heading", "##### Heading", "whole"),
        ("\\boxed{}", "\\boxed{}", "whole"),
        ("He buys two. So he has four.", "He buys two. So he has four.", "whole"),
    ],
)
def test_the_answer_is_where_the_text_says_so(gold: str, text: str, form: AnswerForm) -> None:
    assert take_answer(gold, "auto") == (text, form)
    assert take_answer(gold, form) == (text, form)


@pytest.mark.parametrize("form", ["last_box", "after_hashes", "after_answer_is", "letter"])
def test_a_text_without_the_form_has_no_answer(form: AnswerForm) -> None:
    assert take_answer("A cat has 4 legs", form) is None


@pytest.mark.parametrize(
    ("gold", "letter", "text"),
    [
        ("\\textbf{(B)}\\ 111", "B", "111"),
        ("\\text{(D) }10\\frac{2}{3}", "D", "10\\frac{2}{3}"),
        ("\\mathrm{(E)}\\ \\frac{10}{7}", "E", "\\frac{10}{7}"),
        ("$\\textbf{(A)}\\ \\frac{7}{9}$", "A", "\\frac{7}{9}"),
        ("\\text{(C) yes}", "C", "yes"),
        ("B) 111", "B", "111"),
        ("b) 111", "B", "111"),
        ("C. Paris", "C", "Paris"),
        ("A: 5", "A", "5"),
        ("**(C)** 5", "C", "5"),
        ("Option D", "D", ""),
        ("[B]", "B", ""),
        ("E", "E", ""),
    ],
)
def test_an_option_is_its_letter_and_its_text(gold: str, letter: str, text: str) -> None:
    assert option_of(gold) == (letter, text)
    assert take_answer(gold, "letter") == (letter, "letter")


def test_the_letter_is_also_found_where_the_answer_is() -> None:
    solutions = ("Both fit. #### B", "So $\\boxed{\\textbf{(B)}}$.", "The answer is B.", "Answer: (B) 7")
    assert [take_answer(solution, "letter") for solution in solutions] == [("B", "letter")] * 4


@pytest.mark.parametrize(
    "gold", ["A cat", "(A,B)", "AB", "D.C. United", "A:B", "A(1,2)", "\\text{(A), (C)}", "(b + 2)", "B = 5"]
)
def test_what_only_begins_like_an_option_is_none(gold: str) -> None:
    assert option_of(gold) is None


@pytest.mark.slow
@given(st.text(alphabet="ABb#\\boxed{}()[]$*.: \nanswer is1", max_size=300), st.sampled_from(get_args(AnswerForm)))
def test_any_text_is_read_or_refused(gold: str, form: AnswerForm) -> None:
    taken = take_answer(gold, form)
    assert taken is None or taken.form == form or form == "auto"
    assert taken is None or taken.form == "whole" or taken.text
