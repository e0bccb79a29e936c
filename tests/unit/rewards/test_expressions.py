"""Arithmetic that a model wrote: exact, bounded, never run as code; and the rewards that use it."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.expressions import BadExpression, compute, parse
from lowmem_rl.rewards.reward import score_with
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task

COUNTDOWN = Example(
    "c", ({"role": "user", "content": "Reach 9 with 1, 2, 3."},), "9", extra={"numbers": [3, 1, 2], "target": 9}
)
PROGRAM = Example(
    "p", ({"role": "user", "content": "f?"},), "n^2", extra={"points": [[1, 1], [2, 4]], "unseen": [[5, 25], [9, 81]]}
)  # fmt: skip


def value(text: str, **names: int) -> Fraction:
    return compute(parse(text), {name: Fraction(number) for name, number in names.items()})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1/3 + 1/6", Fraction(1, 2)),
        ("-(2 - 5) * 007", 21),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("2 × 3 ÷ 4 − 1", Fraction(1, 2)),
        (r"2 \times \left(3 + 4\right)", 14),
        ("2^10", 1024),
        ("2**{3}", 8),
        ("3(4)", 12),
        (r"\frac{8}{3 - \frac{8}{3}}", 24),
        (r"\dfrac{4 \cdot 6}{1}", 24),
        (r"\frac{2^{3}}{4} + \frac12", Fraction(5, 2)),
        (r"{4} \times {6}", 24),
        (r"\(4 ⋅ 6 ∕ 1\).", 24),
    ],
)
def test_arithmetic_is_exact(text: str, result: Fraction) -> None:
    assert value(text) == result


def test_a_name_has_its_value_and_may_follow_a_number() -> None:
    assert value("2n^2 - n(n+1)", n=5) == 20


HOSTILE = [
    "9**9**9**9", "2**64**2", "(((" * 60, "1/0", "2**-1", "2**0.5", "9" * 300, "1 2", "n", "",
    "__import__('os')", "().__class__", "f(2)", "1 if 1 else 2", "0x10", "1e9", "1_0", "1j", "True", "[1]", "1//2",
    "5%3", "1<2", "\0", "\ud800", "１+１", "sum([1])", "lambda: 1", "999999999999999**60", "1" + "*99" * 60,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_all_else_is_refused_at_once(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(BadExpression):
        value(text)
    assert time.thread_time() - began < 0.5


@given(st.text() | st.text("0123456789+-*/^(). n", max_size=220))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        result = value(text, n=7)
    except BadExpression:
        return
    assert max(result.numerator.bit_length(), result.denominator.bit_length()) <= 256


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("(2 + 1) * 3", 1),
        (r"\boxed{(2 + 1) \times 3}", 1),
        ("3 * (1 + 2) = 9", 1),
        ("9 = 3 * (1 + 2)", 1),
        ("3×(1+2)=9.", 1),
        (r"$3 \times (1 + 2) = 9$.", 1),
        (r"\( 3 \cdot (1 + 2) \)", 1),
        ("3 x (1 + 2)", 1),
        (r"3\frac{2}{1}", 0),
        (r"9 = \dfrac{3}{1} + 2", 0.1),
        ("10 = 3 * (1 + 2)", 0.1),
        ("9 = 9", 0),
        ("9 = 3 * 3", 0),
        ("3 * (1 + 2) = 10", 0.1),
        ("3 + 2 + 1", 0.1),
        ("3 / (1 + 2 - 2)", 0),
        ("3 * 3", 0),
        ("3 ** 2 * 1", 0),
        ("9", 0),
        ("", 0),
    ],
)
def test_countdown_wants_every_number_once_and_the_target(answer: str, paid: float) -> None:
    reward = load_reward("countdown")
    assert score_with(reward, f"<think>3 * 3</think><answer>{answer}</answer>", COUNTDOWN) == paid
    assert score_with(reward, f"<think><answer>{answer}</answer>", COUNTDOWN) == 0


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("n^2", 1),
        ("f(n) = n * n", 1),
        ("(n+1)(n-1) + 1", 1),
        ("3n - 2", 0),
        ("n^2 + (n-1)(n-2)", 0),
        ("25", 0),
        ("", 0),
    ],
)
def test_a_program_must_fit_what_was_not_shown(answer: str, paid: float) -> None:
    assert score_with(load_reward("program_synthesis"), f"<think></think>\\boxed{{{answer}}}", PROGRAM) == paid


@pytest.mark.parametrize("name", ["countdown", "program_synthesis"])
def test_an_example_of_another_task_is_named(name: str) -> None:
    other = Example("other", ({"role": "user", "content": "2 + 3?"},), "5")
    with pytest.raises(RewardError, match="no extra.*example 'other'"):
        score_with(load_reward(name), "\\boxed{5}", other)


@pytest.mark.parametrize(
    ("task", "rewards"),
    [
        ("countdown", ["countdown"]),
        ("program_synthesis", ["program_synthesis"]),
        ("matrix_inverse", ["matrix_rows", "matrix_frobenius", "matrix_l1"]),
        ("rref", ["matrix_rows", "matrix_frobenius", "matrix_l1"]),
    ],
)
def test_a_tasks_perfect_completion_earns_the_maximum(task: str, rewards: list[str]) -> None:
    made = load_task(TaskConfig(name=task))
    for example in made.examples(Selection("test", limit=20)):
        for reward in map(load_reward, rewards):
            assert score_with(reward, made.gold_completion(example), example) == reward.high
