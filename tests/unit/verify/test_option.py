"""Multiple choice: an option is right by its letter, by its text, or by both, if they agree."""

import pytest

from lowmem_rl.verify import verify
from lowmem_rl.verify.extract import lenient_answer


def is_paid(gold: str, completion: str) -> bool:
    answer = lenient_answer(completion)
    return answer is not None and verify(answer, gold)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("C", "\\boxed{C. x = 42}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{B}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{(B)}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{\\textbf{(B)}\\ 111}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{\\textbf{B. } 111}"),
        ("\\mathrm{(B)}\\,111", "\\boxed{B) 111}"),
        ("\\textbf{(B)}\\ \\frac{1}{2}", "\\boxed{0.5}"),
        ("\\textbf{(B) }111", "\\boxed{B}"),
        ("(E)\\ -5", "\\boxed{-5}"),
        ("B", "\\boxed{(B) 12}"),
        ("B", "\\boxed{B. 12}"),
        ("B", "\\boxed{B) foo}"),
        ("foo", "\\boxed{B) foo}"),
        ("B", "The answer is B. 12"),
        ("B", "The answer is B: 12"),
        ("B", "The answer is B because 12 is even."),
        ("B", "\\boxed{\\text{Option B}}"),
        ("B", "\\boxed{\\text{(B) } x^2}"),
        ("B", "The answer is $\\textbf{(B)}\\ 12$."),
        ("B", "#### B) 12"),
        ("(B)", "The answer is (B) the red house."),
        ("B. the red house", "\\boxed{the red house}"),
        ("B", "**Answer: (B) 12**"),
        ("B", "So the correct choice is **B. 12**."),
        ("D", "\\boxed{\\mathbf{D}}"),
        ("C", "Answer: C"),
        ("D", "The answer is letter D."),
        ("42", "The correct answer is (C) 42 students."),
        ("B", "\\boxed{\\text{(B) } 42}"),
        ("B", "\\boxed{\\mathbf{(B)}\\ 42}"),
        ("B", "\\boxed{(B)\\ \\frac{1}{2}}"),
        ("\\frac12", "\\boxed{(B)\\ \\frac{1}{2}}"),
        ("Paris", "\\boxed{B. Paris}"),
        ("B", "The answer is B: Paris"),
        ("B", "The correct option is B. 42"),
        ("B", "The answer is (B) because 42 is even."),
        ("B", "The answer is **(B) Paris**."),
        ("B", "Answer: (B) 3/4"),
        ("B", "The answer is B, 42."),
        ("B", "Answer: B)"),
        ("B", "The answer is option (B)."),
        ("\\textbf{(D) } 7", "\\boxed{7}"),
        ("\\textbf{(D) } 7", "\\boxed{D}"),
        ("\\textbf{(D)}\\ \\sqrt{2}", "\\boxed{\\sqrt{2}}"),
        ("\\mathrm{(D) \\ } 7", "\\boxed{D}"),
        ("\\text{(D)}7", "\\boxed{D}"),
        ("D. 7", "\\boxed{D}"),
        ("C", "The answer is C. B is wrong."),
        ("5", "The answer is E[X] = 5."),
        ("10", "The answer is C(5,2) = 10."),
    ],
)
def test_an_option_is_its_letter_or_its_text(gold: str, completion: str) -> None:
    assert is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("C", "\\boxed{B. x = 42}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{C}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{112}"),
        ("\\textbf{(B)}\\ 111", "\\boxed{(A) 111}"),
        ("A", "\\boxed{(A) 5 (B) 6}"),
        ("B", "\\boxed{(A) 5, (B) 6}"),
        ("A", "\\boxed{(A) or (B)}"),
        ("A", "\\boxed{(A) or B}"),
        ("A", "\\boxed{A \\cup B}"),
        ("A", "\\boxed{A. 5 B. 6 C. 7}"),
        ("A", "\\boxed{A, B}"),
        ("12", "\\boxed{(B) 13}"),
        ("A", "The answer is A or B."),
        ("A", "The answer is (A) and (B)."),
        ("B", "The answer is not B."),
        ("A", "The answer is A + B."),
        ("5", "\\boxed{(A) - 5}"),
        ("A", "\\boxed{(A) - 5}"),
        ("A", "\\boxed{\\text{Not A. B}}"),
        ("B", "The answer is A, B, C or D."),
        ("\\textbf{(D)}\\ 7", "\\boxed{E}"),
        ("\\textbf{(D)}\\ 7", "\\boxed{8}"),
        ("\\textbf{(D)}\\ 7", "\\boxed{(C) 7}"),
        ("\\textbf{(D)}\\ 7", "\\boxed{D, E}"),
        ("B", "\\boxed{(A) 1 \\quad (B) 2 \\quad (C) 3}"),
        ("A", "\\boxed{(A) 1 \\quad (B) 2 \\quad (C) 3}"),
        ("B", "The answer is C. B is wrong."),
        ("B", "\\boxed{B + 1}"),
        ("A", "A: 5, B: 6"),
        ("5", "\\boxed{A. 5, B. 6}"),
        ("A", "The answer is A and B."),
        ("D", "The answer is (D) 42 or (E) 43."),
        ("E", "The answer is E[X] = 5."),
        ("A", "The answer is A = 5."),
        ("C", "The answer is C(5,2)."),
        ("B", "The answer is Brazil."),
    ],
)
def test_another_letter_another_text_or_several_letters_are_wrong(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)
