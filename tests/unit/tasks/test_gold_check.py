"""Golds that nobody can answer are found, golds that somebody can are not."""

from typing import Any

import pytest

from lowmem_rl.example import Example
from lowmem_rl.tasks.gold_check import check_gold_texts, reading_notes


def example(answer: str, solution: str = "", **extra: Any) -> Example:
    return Example("set/1", ({"role": "user", "content": "How many?"},), answer, extra={"reasoning": solution, **extra})


def found(*golds: str) -> list[tuple[str, str]]:
    return [(one.level, one.what) for one in check_gold_texts([example(gold) for gold in golds])]


@pytest.mark.parametrize(
    ("gold", "what"),
    [
        ("She sold 24.\n#### 72", "hold ####"),
        ("The total is \\boxed{5}", "hold a box"),
        ("The answer is 5", 'say "answer is"'),
        ("Answer: 5", 'say "answer is"'),
        ("Let x be 5. Then it is 7. So he pays twelve.", "are sentences"),
        ("Jim has four\nJack has five", "are sentences"),
        ("The sum is 42.", "are sentences"),
        ("Together they have 26 apples left", "are sentences"),
        ("小明有五个苹果。小红有三个苹果。", "are sentences"),
        ("first we " * 11, "are sentences"),
        ("proof", "only mark that there is no answer"),
        ("None", "only mark that there is no answer"),
        ("-", "only mark that there is no answer"),
        ("[invalid]", "only mark that there is no answer"),
        ("\\text{TBD}", "only mark that there is no answer"),
        ("No answer.", "only mark that there is no answer"),
    ],
)
def test_an_unanswerable_gold_prevents_training_if_they_are_the_rule(gold: str, what: str) -> None:
    ((level, said),) = found(gold)
    assert (level, what in said) == ("error", True)
    assert said.endswith("of 'set/1'")


@pytest.mark.parametrize(
    "gold",
    [
        *("42", "-7", "3.5", "$5", "1,000", "3 and 5", "2, 3", "x=5", "y=2x+3", "\\frac{1}{2}", "(1, 3)", "[2, 5)"),
        *(
            "\\text{even}",
            "x\\in[1,2]",
            "x^2 \\text{ and } 3",
            "0<a<1 \\text{ or } b>3",
            "\\boxed{5}",
            "\\pi",
            "∅",
            "是",
        ),
        # An option is paid by its letter and by its text.
        *(
            "\\textbf{(B)}\\ 111",
            "C. Paris",
            "B",
            "(B)",
            "\\text{(C)}",
            "\\text{(A), (C)}",
            "Yes",
            "The Beatles",
            "Life is Beautiful",
            "No such x exists",
        ),
        *("St. Louis, Missouri", "Washington, D.C. United States", "11:30 a.m.", "10 cm", "1/2 hour", "a cup of tea"),
        *("\\begin{pmatrix} 1 & 2 \\\\\n 3 & 4 \\end{pmatrix}", "[[1, 0], [0, 1]]", "4*2^n + 5*n - 4"),
    ],
)
def test_an_answer_is_no_finding(gold: str) -> None:
    assert found(gold) == []


def test_few_golds_are_a_note_or_nothing() -> None:
    sound = [str(n) for n in range(199)]
    assert [level for level, _ in found("She sold it.\n#### 72", *sound)] == ["note"]
    assert found("proof", *sound) == []
    assert [level for level, _ in found(*["proof"] * 7, *sound[:53])] == ["note"]


def test_a_text_with_a_number_that_a_box_could_hold_is_a_note() -> None:
    ((level, what),) = found("July 4, 1776", "42nd Street", "5 apples and 3 pears")
    assert (level, what.partition(",")[0]) == ("note", '3 of 3 golds are read as something else in "The answer is ..."')


def test_a_rows_own_solution_must_earn_the_reward() -> None:
    right = [example("0.5", "So it is $\\boxed{\\frac{1}{2}}$."), example("7", "We add 3 and 4, which is 8 - 1.")]
    assert check_gold_texts(right) == []
    (finding,) = check_gold_texts([*right, example("7", "So it is \\boxed{8}.")])
    assert (finding.level, "differ from what the row's own solution states" in finding.what) == ("note", True)


def test_how_rows_were_read_is_reported() -> None:
    rows = [example("5", read_as="task.answer=last_box")] * 3 + [example("5")]
    assert [note.what for note in reading_notes(rows)] == ["3 of 4 rows are read as task.answer=last_box"]


OPTIONS = ["Paris", "Rome", "Berlin"]


@pytest.mark.parametrize(
    ("gold", "extra"),
    [
        ("1", {"choices": OPTIONS}),
        ("B", {"options": {"A": "Paris", "B": "Rome"}}),
        ("B", {"choices": {"text": OPTIONS, "label": ["A", "B", "C"]}}),
        ("(B)", {"options": ["A) Paris", "B) Rome"]}),
        ("C", {"choices": [{"label": "A", "text": "Paris"}, {"label": "B", "text": "Rome"}]}),
    ],
)
def test_an_option_that_the_question_does_not_show_cannot_be_named(gold: str, extra: dict[str, Any]) -> None:
    (finding,) = check_gold_texts([example(gold, **extra)])
    assert (finding.level, "name an option that the question does not show" in finding.what) == ("error", True)
    texts = " ".join(map(str, [*extra.values()]))
    shown = Example("set/1", ({"role": "user", "content": f"Which of {texts}?"},), gold, extra=extra)
    assert check_gold_texts([shown]) == []


def test_an_answer_that_is_an_option_itself_needs_none_shown() -> None:
    assert check_gold_texts([example("3", choices=["2", "3"]), example("5", options=["4 cm", "5 cm"])]) == []
    assert check_gold_texts([example("Rome", choices=OPTIONS), example("B", choices="A or B")]) == []


def test_answers_of_a_list_are_reported() -> None:
    (note,) = reading_notes([example("1", accepted_answers=("1", "2")), example("3")])
    assert (note.level, note.what) == ("note", "1 of 2 rows accept each answer of a list, such as ('1', '2')")
