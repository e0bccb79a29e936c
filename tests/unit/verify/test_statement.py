"""What a completion states after "answer is", and whether it is right."""

import pytest

from lowmem_rl.verify import verify
from lowmem_rl.verify.extract import lenient_answer


def is_paid(gold: str, completion: str) -> bool:
    answer = lenient_answer(completion)
    return answer is not None and verify(answer, gold)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("42000000", "The answer is 42 million."),
        ("(3,4)", "The answer is the point (3, 4)."),
        ("7", "The answer is not 5, but rather 7."),
        ("7", "The answer is 7 rather than 5."),
        ("7", "The answer is 7. The answer is not 5."),
        ("8", "The answer is not 5 or 6 but 8."),
        ("-\\frac{1}{2}", "The answer is negative $\\frac{1}{2}$."),
        ("5", "The answer is positive 5."),
        ("42 cents", "The answer is 42 cents."),
        ("42\\%", "The answer is 42 percent of the total."),
        ("5,7", "The answer is x = 5 or 7."),
        ("1,2,3", "The answer is 1, 2, or 3."),
        ("42000", "The answer is 42 thousand dollars."),
        ("42", "The answer is 42, which is 6 times 7."),
        ("7", "The answer is 7 since x = 3."),
        ("7", "The answer is 3 apples + 4 apples = 7 apples."),
        ("42", "The answer is 42 apples."),
        ("5 cm", "The answer is 5 centimeters long."),
        ("42", "The answer is 42!"),
        ("12", "The answer is 12 a day."),
        ("7:30", "The answer is 7:30 p.m."),
        ("18", "The answer is that she makes $18 every day."),
        ("5", "The answer is 5 and no other number."),
        ("100", "The answer is one hundred, that is 100."),
        ("-7", "Therefore the answer is negative seven, i.e. -7."),
        ("-3/4", "The answer is minus 3/4."),
        ("9", "The answer is not 8 but 9."),
        ("9", "The answer is 9 (not 8)."),
        ("3,4", "The answer is 3 or 4."),
        ("1/2, 3", "The answer is x = 1/2 or x = 3."),
        ("700", "The answer is 7 hundred."),
        ("3500000", "The answer is 3.5 million."),
        ("7", "The answer is 7 cents."),
        ("20", "The answer is 20% of them."),
        ("16", "The answer is 16 years old."),
        ("16", "The answer is exactly $16$ ways to do it."),
        ("16", "The answer is 16 + 0 = 16 marbles."),
        ("16", "The answer is now 16 - the number of rows squared."),
        ("60", "The answer is 60 miles per hour."),
        ("12", "The answer is 12 square meters."),
        ("0.05", "The answer is 5 percent."),
        ("2", "The answer is 2, i.e. two."),
        ("30", "The answer is 30 times."),
        ("15", "The answer is x = 15 apples."),
        ("x=15", "The answer is $x = 15$."),
        ("2x+1", "The answer is the expression 2x + 1."),
        ("72", "The answer is 72 pages a day."),
        ("2\\pi", "The answer is 2\\pi cm."),
        ("Monday", "The answer is Monday, because 7 days pass."),
        ("5", "Not 3, so the answer is 5."),
    ],
)
def test_a_statement_is_read_with_the_words_that_change_its_number(gold: str, completion: str) -> None:
    assert is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("4", "The answer is the point (3, 4)."),
        ("2", "The answer is the interval [2, 5)."),
        ("5", "The answer is not 5."),
        ("5", "The answer isn't 5."),
        ("5", "The answer is neither 5 nor 7."),
        ("5", "It is not 5."),
        ("3", "So we get negative 3."),
        ("5", "The answer is 7 minus 5."),
        ("7", "The answer is 7 minus 5."),
        ("$5", "The answer is 5 euros."),
        ("42", "The answer is 42 or 43."),
        ("43", "The answer is $42$ or $43$."),
        ("5", "The answer is x = 5 or 7."),
        ("7", "So x is 5 or 7."),
        ("1", "The answer is 1, 2, or 3."),
        ("42", "The answer is 42 thousand dollars."),
        ("42", "The answer is $42 million."),
        ("42", "So there are 42 dozen eggs."),
        ("42", "The answer is 42 hundredths."),
        ("42", "The answer is 42 squared."),
        ("5", "The answer is 5 factorial."),
        ("42", "The answer is half of 42."),
        ("5", "The answer is the square root of 5."),
        ("5", "The answer is more than 5."),
        ("3", "The answer is between 3 and 4."),
        ("4", "The answer is between 3 and 4."),
        ("5", "The answer is the sum of 5 and 7."),
        ("5 apples", "The answer is 5 oranges."),
        ("5", "The answer is 5x + 3 dollars."),
        ("11", "The answer is 11 hours and 30 minutes."),
        ("12", "The final answer is negative $12$."),
        ("8", "The answer is definitely not 8."),
        ("8", "The correct answer is not 8."),
        ("8", "The answer cannot be 8."),
        ("8", "x is not equal to 8."),
        ("4", "The answer is 3 or 4."),
        ("3", "The answer is either 3 or 4, depending on the sign."),
        ("3", "Either 3 or 4 is the answer."),
        ("3", "x = 2 or x = 3"),
        ("3", "So $x = 2$ or $x = 3$."),
        ("7", "The answer is 7 hundred."),
        ("7", "The answer is 7 thousand people."),
        ("7", "The answer is 7 trillion."),
        ("7", "The answer is **7 million**."),
        ("7", "The answer is $7\\text{ million}$."),
        ("7", "Answer: 7 dozen eggs"),
        ("$7", "The answer is 7 cents."),
        ("\\$7", "The answer is seven cents, or 7 cents."),
        ("5", "The answer is 5 hundredths."),
        ("5", "The answer is 5 halves."),
        ("2", "The answer is 2 thirds."),
        ("3", "The answer is 3 more than 5."),
        ("5", "The answer is greater than 5."),
        ("5", "The answer is at most 5."),
        ("5", "The answer is 5 or more."),
        ("5", "The answer is up to 5."),
        ("5", "The answer is three times 5."),
        ("5", "The answer is 5 squared."),
        ("20", "The answer is from 10 to 20."),
        ("10", "The answer is 10 to 20."),
    ],
)
def test_a_number_that_words_change_is_not_the_answer(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("odd", "The answer is __odd__."),
        ("odd", "The answer is _odd_."),
        ("Evelyn", "**Answer:** Evelyn"),
        ("Evelyn", "**The answer is Evelyn.**"),
        ("5", "The answer is **5**."),
        ("C", "Answer: **(C)**"),
        ("C", "The answer is **C) 42**."),
        ("odd", "The answer is $\\text{odd}$."),
        ("odd", "The answer is \\(\\text{odd}\\)."),
        ("\\text{odd}", "\\boxed{odd}"),
        ("odd", "\\boxed{*odd*}"),
        ("\\text{odd}", "The answer is odd."),
        ("\\textit{odd}", "\\boxed{Odd}"),
        ("\\text{(odd)}", "\\boxed{odd}"),
        ("5, 7", "The answer is **5** and **7**."),
        ("2x", "The answer is 2*x."),
        ("20", "The answer is 20 = 14 + 6."),
        ("20", "The answer is 14 + 6, which is 20."),
        ("20", "The answer is 14 + 6, that is, 20."),
        ("20", "Day 1 - 20 pages"),
        ("121", "Total after year 2 - $121"),
        ("Tuesday", "The answer is ***Tuesday***!"),
        ("Tuesday", "*The answer is Tuesday.*"),
        ("Tuesday", "**Answer:** **Tuesday**"),
        ("Tuesday", "### Answer: **Tuesday**"),
        ("even", "The answer is \\textit{even}."),
        ("No", "The answer is `No`."),
        ("x^*", "The answer is $x^*$."),
        ("even", "\\boxed{**even**}"),
        ("C", "**C**"),
        ("1/2", "The answer is **1/2**."),
        ("[0,1)", "The answer is **[0,1)**."),
        ("42", "**Final Answer**\n\n**42**"),
    ],
)
def test_markdown_around_an_answer_is_no_part_of_it(gold: str, completion: str) -> None:
    assert is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("5", "The answer is **5** million."),
        ("odd", "\\boxed{\\text{even}}"),
        ("Evelyn", "The answer is **Debra**."),
        ("Evelyn", "The answer is **Evelyn** or **Debra**."),
        ("Evelyn", "The answer is not **Evelyn**."),
        ("odd", "The answer is **even**, not **odd**."),
        ("Tuesday", "The answer is **Wednesday**."),
        ("Tuesday", "The answer is **Tuesday** or **Wednesday**."),
    ],
)
def test_markdown_hides_no_wrong_answer(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("5", "$\\text{Answer: } 5$"),
        ("5", "\\[\\text{The answer is 5}\\]"),
        ("5", "\\[\\boxed{\\text{The answer is } 5}\\]"),
        ("odd", "$$\\text{The answer is odd.}$$"),
        ("(3,4)", "\\[\\text{Answer: }(3,4)\\]"),
        ("5", "$$\\textbf{The answer is } \\mathbf{5}.$$"),
        ("5", "The answer is \\[ 5 \\]"),
        ("274\\", "\\boxed{274}"),
        ("x^2\\", "\\boxed{x^2}"),
        ("-5", "$$\\text{The answer is negative } 5.$$"),
        ("11111", "There are 11\\,111 trees."),
        ("16386", "There are 16{,}\\!386 trees."),
        ("11111", "\\boxed{11\\thinspace 111}"),
        ("11111", "\\boxed{11\\;111}"),
        ("3.141592", "\\boxed{3.141\\,592}"),
        ("11111", "\\boxed{11\xa0111}"),
        ("1.5", "\\boxed{1\u20091/2}"),
        ("8", "$$\\text{Final Answer: } \\mathbf{8}$$"),
        ("8", "\\( \\text{Answer} = 8 \\)"),
        ("8", "$\\text{The answer is } 8\\text{ cm}$"),
        ("\\sqrt{2}", "$$\\text{The answer is } \\sqrt{2}.$$"),
        ("8", "\\[Answer: 8.\\]"),
        ("8", "\\boxed{\\text{Answer: }8}"),
        ("8", "The answer is 8\\)."),
        ("8", "The answer is 8\\\\\n"),
        ("8", "Answer: $8\\,$"),
        ("8", "$$\\text{The answer is } 8$$ and that is all 9 of them."),
        ("\\frac{1}{8}\\", "\\boxed{\\frac{1}{8}}"),
        ("12345", "The answer is $12,\\!345$."),
        ("12345", "\\boxed{12\\,345}"),
        ("12345", "Answer: 12\u202f345"),
        ("1234567", "\\boxed{1,\\!234,\\!567}"),
        ("12345", "$12{,}\\!345$"),
        ("-12345", "\\boxed{-12,\\!345}"),
        ("12345", "\\boxed{12\\:345}"),
        ("12\\,345", "12345"),
    ],
)
def test_a_label_inside_math_marks_and_spaces_inside_a_number_are_no_part_of_the_answer(
    gold: str, completion: str
) -> None:
    assert is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("12", "$$\\text{The answer is } 12.5$$"),
        ("12", "$$\\text{The answer is not } 12.$$"),
        ("27", "The answer is 274\\"),
        ("111", "There are 11\u202f111 trees."),
        ("1112", "\\boxed{11,\\!12}"),
        ("1,234", "\\boxed{\\{1, \\, 234\\}}"),
        ("8", "$$\\text{The answer is } -8.$$"),
        ("8", "$$\\text{The answer is } 8 \\text{ or } 9.$$"),
        ("345", "Total: 12\xa0345 people"),
    ],
)
def test_a_label_or_a_thin_space_makes_no_wrong_answer_right(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("5", "The answer is 5. Wait, the answer is 7."),
        ("12", "So the answer is 12? No: the final answer is 13."),
        ("5", "The answer is 5 out of 10."),
        ("1/2", "The answer is 1/2 of 10."),
        ("1", "The answer is 1 in 5."),
        ("10", "The answer is 10 to the power of 5."),
        ("2", "The answer is 2 raised to the 5th."),
        ("5", "The answer is 5 lakh."),
        ("5", "The answer is 5 ninths."),
        ("7", "The answer is 7 billionths."),
        ("12", "The answer is 12 modulo 5."),
        ("5", "The answer is 5 choose 2."),
        ("0.5", "The answer is 0.5 repeating."),
        ("5", "The answer is 5 through 7."),
        ("5", "The answer is 5 remainder 2."),
        ("17", "The answer is 17 with a remainder of 3."),
        ("5", "The answer is 5 degrees below zero."),
        ("5", "The answer is $5 and 30 cents."),
        ("5", "The answer is greater than or equal to 5."),
        ("5", "The answer is all numbers except 5."),
        ("5", "The answer is everything but 5."),
        ("5", "The answer is the negative of 5."),
        ("2", "So the number is 1011 in base 2."),
        ("42", "So he doesn't have 42."),
        ("42", "So she cannot make 42."),
    ],
)
def test_words_that_make_another_number_of_it_pay_nothing(gold: str, completion: str) -> None:
    assert not is_paid(gold, completion)


@pytest.mark.parametrize(
    ("gold", "completion"),
    [
        ("7", "The answer is not 5. The answer is 7."),
        ("7", "First the answer is 5, then the answer is 7."),
        ("12", "The answer is 12 in 2024."),
        ("15", "The answer is 15 to the nearest integer."),
        ("12", "The answer is 12. I hope my answer is correct."),
        ("12", "Answer: 12. I am sure that this answer is right."),
        ("-5", "Minus 5"),
        ("12", "The answer is 12 $\\blacksquare$"),
        ("33/7", "The answer is 33/7 \\qed"),
    ],
)
def test_the_last_statement_is_read_with_its_own_words(gold: str, completion: str) -> None:
    assert is_paid(gold, completion)
