"""Sets of real numbers in any notation."""

import pytest

from lowmem_rl.verify.equal import compare_exactly


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x>1 \\text{ or } x<-2", "(-\\infty,-2)\\cup(1,\\infty)"),
        ("x < -2, x > 1", "(-\\infty,-2)\\cup(1,\\infty)"),
        ("x<-2 \\lor x>1", "x>1 or x<-2"),
        ("x \\in (-\\infty,-2)\\cup(1,\\infty)", "x>1 \\text{ or } x<-2"),
        ("\\{x \\mid x>5\\}", "(5,\\infty)"),
        ("\\{x : x>5\\}", "x>5"),
        ("\\{x \\in \\mathbb{R} \\mid x>5\\}", "5<x"),
        ("\\{x | -1 \\le x < 2\\}", "[-1,2)"),
        ("\\left\\{ x \\,\\middle|\\, x > 5 \\right\\}", "(5,\\infty)"),
        ("\\{x \\mid x < 1 \\text{ or } x \\ge 4\\}", "(-\\infty,1)\\cup[4,\\infty)"),
        ("x \\ne 3", "(-\\infty,3)\\cup(3,\\infty)"),
        ("x \\neq 3", "\\mathbb{R} \\setminus \\{3\\}"),
        ("\\mathbb{R} - \\{0, 1\\}", "x \\ne 0 \\text{ and } x \\ne 1"),
        ("x > 1 \\text{ and } x < 5", "(1,5)"),
        ("1<x<5", "x>1, x<5"),
        ("[1,2]\\cup[2,3]", "1 \\le x \\le 3"),
        ("(-\\infty,\\infty)", "\\mathbb{R}"),
        ("all real numbers", "x \\in \\mathbb{R}"),
        ("\\{1\\}\\cup[2,3]", "x=1 \\text{ or } 2 \\le x \\le 3"),
        ("x \\le -\\sqrt{2} \\text{ or } x \\ge \\sqrt{2}", "(-\\infty,-\\sqrt{2}]\\cup[\\sqrt{2},\\infty)"),
        ("x ≤ 1/2 or x ≥ 3", "(−∞, 0.5] ∪ [3, ∞)"),
        ("(-\\infty, -1) \\text{ or } (1, \\infty)", "(-\\infty,-1)\\cup(1,\\infty)"),
        ("0 < \\theta < \\pi", "(0,\\pi)"),
        ("|x| > 2", "x < -2 \\text{ or } x > 2"),
        ("|x - 3| \\le 2", "[1, 5]"),
        ("(0,9]\\cap[3,12)", "3 \\le x \\le 9"),
        ("-2 \\leqslant x \\leqslant 2", "[-2,2]"),
    ],
)
def test_one_set_in_two_notations_is_equal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is True
    assert compare_exactly(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x>1 \\text{ or } x<5", "(1,5)"),
        ("|x| > 2", "-2 < x < 2"),
        ("x>1 \\text{ and } x<-1", "(-\\infty,-1)\\cup(1,\\infty)"),
        ("\\{x \\mid x \\ge 3\\}", "x>3"),
        ("\\{x \\mid x>3\\}", "x<3"),
        ("(-\\infty,-1)\\cup(1,\\infty)", "x\\ge 1 \\text{ or } x<-1"),
        ("(-\\infty,-1)\\cup(1,\\infty)", "x> 1 \\text{ or } x<1"),
        ("x \\ne 3", "(-\\infty,3)\\cup[3,\\infty)"),
        ("\\mathbb{R}\\setminus\\{3\\}", "\\mathbb{R}"),
        ("\\{1\\}\\cup[2,3]", "[1,3]"),
        ("(1,2),(3,4)", "(1,2)\\cup(3,4)"),
    ],
)
def test_sets_that_differ_in_a_point_are_unequal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is False
    assert compare_exactly(other, one) is False


@pytest.mark.parametrize(
    "text", ["x > a", "x < y", "x \\in \\mathbb{Z}", "\\{x \\mid y > 3\\}", "x > 1.414214", "(1, 2, 3) \\cup U"]
)
def test_what_is_no_set_of_known_numbers_is_not_decided_here(text: str) -> None:
    assert compare_exactly(text, "(\\sqrt{2}, \\infty)") in (None, False)


def test_pairs_between_commas_may_be_points_and_have_no_intersection() -> None:
    assert compare_exactly("(1,5),(2,7)", "2<x<5") is not True
    assert compare_exactly("(-\\infty,2),(3,\\infty)", "(-\\infty,2)\\cup(3,\\infty)") is True
