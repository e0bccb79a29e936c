"""Matrices."""

import pytest

from lowmem_rl.verify.equal import compare_exactly


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\left[\\begin{array}{cc}1&2\\\\3&4\\end{array}\\right]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        (
            "\\begin{bmatrix}1&2\\\\3&4\\\\\\end{bmatrix}",
            "\\left(\\begin{array}{rr}1 & 2 \\\\ 3 & 4\\end{array}\\right)",
        ),
        ("\\begin{array}{c|c}\\hline 1&2\\\\ \\hline 3&4\\end{array}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("\\begin{smallmatrix}1&2\\\\3&4\\end{smallmatrix}", "\\begin{Bmatrix}1&2\\\\3&4\\end{Bmatrix}"),
        ("\\begin{pmatrix}1&2\\\\[4pt]3&4\\end{pmatrix}", "\\begin{matrix}1&2\\\\3&4\\end{matrix}"),
        ("[[1,2],[3,4]]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        (
            "\\begin{pmatrix}\\frac12&\\sqrt{2}\\end{pmatrix}",
            "\\left[\\begin{array}{cc}0.5&2^{1/2}\\end{array}\\right]",
        ),
        ("A = \\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
        (
            "\\frac{1}{5}\\begin{pmatrix}2&4\\\\1&x\\end{pmatrix}",
            "\\begin{bmatrix}2/5&0.8\\\\1/5&\\frac{x}{5}\\end{bmatrix}",
        ),
        ("10^{2}\\begin{pmatrix}4&2\\end{pmatrix}", "\\begin{pmatrix}400&200\\end{pmatrix}"),
        ("(1/2)\\begin{pmatrix}4&2\\end{pmatrix}", "\\begin{pmatrix}2&1\\end{pmatrix}"),
        ("-\\begin{pmatrix}2&4\\end{pmatrix}", "\\begin{pmatrix}-2&-4\\end{pmatrix}"),
        ("\\begin{pmatrix*}[r]1&2\\end{pmatrix*}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ],
)
def test_a_matrix_is_equal_in_every_notation(one: str, other: str) -> None:
    assert compare_exactly(one, other) is True
    assert compare_exactly(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\left[\\begin{array}{cc}1&2\\\\3&5\\end{array}\\right]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("\\begin{pmatrix}1&2&3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("[[1,2],[4,3]]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("\\frac13\\begin{pmatrix}2&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ],
)
def test_other_entries_or_another_shape_are_unequal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is False
    assert compare_exactly(other, one) is False
