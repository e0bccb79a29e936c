"""Partial credit for matrices."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.matrix import read_matrix
from lowmem_rl.rewards.reward import score_with
from lowmem_rl.rewards.reward_registry import load_reward

HALF = Fraction(1, 2)


def example(answer: str = "[[1/2, 0], [0, 2]]") -> Example:
    return Example("m", ({"role": "user", "content": "Invert A."},), answer)


@pytest.mark.parametrize(
    "text",
    [
        "[[1/2, 0], [-3, 1]]",
        "[[0.5,0],[-3,1.0]]",
        "$[[1/2, 0],\n [−3, 1]]$",
        r"\begin{pmatrix} 1/2 & 0 \\ -3 & 1 \end{pmatrix}",
        r"\begin{bmatrix}\frac{1}{2}&0\\-3&1\\\end{bmatrix}",
        r"\left[\begin{array}{cc} \dfrac{1}{2} & 0 \\ -3 & 1 \end{array}\right]",
        r"\left(\begin{array}{r|r} \tfrac12 & 0 \\[4pt] \hline -3 & 1 \end{array}\right)",
        r"A^{-1} = \begin{bmatrix*}[r] ½ & 0 \\ -3 & 1 \end{bmatrix*}",
        r"\begin{smallmatrix} \frac{ 1 }{ 2 } & 0 \\ -\frac{6}{2} & 1 \end{smallmatrix}",
        r"\frac{1}{2}\begin{pmatrix} 1 & 0 \\ -6 & 2 \end{pmatrix}",
        r"-\left[\begin{array}{cc} -0.5 & 0 \\ 3 & -1 \end{array}\right]",
        r"A = \left[ [ 1/2, 0 ], [ -3, 1 ] \right].",
    ],
)
def test_a_matrix_is_read_however_it_is_written(text: str) -> None:
    assert read_matrix(text) == ((HALF, 0), (-3, 1))


@pytest.mark.parametrize("text", ["", "[]", "[[]]", "[[1, 2], [3]]", "[[1, a]]", "[[1/0]]", "[1, 2]", "[[1]" * 9, "5"])
def test_any_other_text_is_no_matrix(text: str) -> None:
    assert read_matrix(text) is None


@given(st.text() | st.text("[]{}\\,&0123456789/-. begin{pmatrix}", max_size=300))
def test_any_text_is_a_matrix_or_none(text: str) -> None:
    matrix = read_matrix(text)
    assert matrix is None or len({len(row) for row in matrix}) == 1


@pytest.mark.parametrize(
    ("given_matrix", "rows", "frobenius", "l1"),
    [
        ("[[1/2, 0], [0, 2]]", 1, 1, 2),
        ("[[1/2, 0], [0, 1]]", 0.5, 1 - 1 / math.sqrt(4.25), 2 * math.exp(-1)),
        ("[[0, 0], [0, 0]]", 0, 0, 2 * math.exp(-2.5)),
        ("[[1/2, 0]]", 0, 0, 0),
        ("no idea", 0, 0, 0),
    ],
)
def test_the_three_ways_to_be_nearly_right(given_matrix: str, rows: float, frobenius: float, l1: float) -> None:
    completion = f"<think>swap</think>\\boxed{{{given_matrix}}}"
    names = ("matrix_rows", "matrix_frobenius", "matrix_l1")
    scores = [score_with(load_reward(name), completion, example()) for name in names]
    assert scores == [pytest.approx(rows), pytest.approx(frobenius), pytest.approx(l1)]


def test_a_gold_answer_that_is_not_a_matrix_is_named() -> None:
    with pytest.raises(RewardError, match="'5' is not a matrix .*example 'm'"):
        score_with(load_reward("matrix_rows"), "\\boxed{[[5]]}", example("5"))
