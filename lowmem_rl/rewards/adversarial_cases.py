"""What rewards are tried on: problems with a perfect completion, and what a policy writes instead.

A policy that is paid for something else finds it. `probes_of` makes what is found first: nothing at
all, padding, the question again, every option at once, the answer without work or only in the
thoughts, two answers, and answers that are nearly right.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from lowmem_rl.example import Example
from lowmem_rl.prompts import THINK_OPEN
from lowmem_rl.rewards.answer_extraction import stated_answer
from lowmem_rl.rewards.think_format import CLOSE
from lowmem_rl.verify.equal import equal_answers
from lowmem_rl.verify.extract import lenient_answer

PREFILL = "<think>\n"
"""What the chat templates of DeepSeek-R1, QwQ and thinking Qwen3.5 open the assistant's turn with."""

MOST_MISSES = 6


@dataclass(frozen=True, slots=True)
class RewardCase:
    """An example, the completion that earns everything, and some that are wrong in this task's own ways."""

    example: Example
    perfect: str
    wrong: tuple[str, ...] = ()


Worth = Literal["wrong", "worthless", "right"]
"""A wrong answer in perfect shape; no answer at all; the right answer in poor shape."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A completion that is not the perfect one, what it is, and what it is worth."""

    what: str
    completion: str
    worth: Worth


def probes_of(trial: RewardCase) -> Iterator[Variant]:
    """Yields what a policy may write instead of the perfect completion."""
    answer = trial.example.answer
    misses = list(near_misses(answer))
    for miss in misses:
        if wrong := with_answer(trial, miss):
            yield Variant(f"the answer {miss!r} for {answer!r}", wrong, "wrong")
            yield Variant(f"the answer only thought, and {miss!r} said", _only_thought(answer, wrong), "wrong")
    for wrong in trial.wrong:
        yield Variant(f"the completion {wrong[-60:]!r}", wrong, "wrong")
    yield from _worthless(trial.example, misses)
    yield Variant("the box in the thoughts", f"<think>\\boxed{{{answer}}}</think>", "right")
    yield Variant("the boxed answer without work", f"\\boxed{{{answer}}}", "right")
    yield Variant("the bare answer", answer, "right")


def hedges_of(trial: RewardCase) -> tuple[str, ...]:
    """Returns a wrong answer before the right one, and behind it: at most one of them deserves the full score."""
    thoughts, close, right = trial.perfect.rpartition(CLOSE)
    wrongs = (with_answer(trial, miss) for miss in near_misses(trial.example.answer))
    for wrong in (wrong.rpartition(CLOSE)[2] for wrong in wrongs if wrong is not None):
        return f"{thoughts}{close}{wrong}\n{right}", f"{thoughts}{close}{right}\n{wrong}"
    return ()


def as_sampled(completion: str, prefill: str, *, closed: bool = True) -> str:
    """Returns a completion as a policy writes it that finds its turn opened with `prefill`.

    One without thoughts closes them at once, unless `closed` is False.
    """
    if not prefill or completion.startswith(prefill):
        return completion
    if completion.startswith(THINK_OPEN):
        return prefill + completion.removeprefix(THINK_OPEN)
    return f"{prefill}{CLOSE if closed else ''}{completion}"


def with_answer(trial: RewardCase, answer: str) -> str | None:
    """Returns the perfect completion with another answer where it states its own, None where that is not found."""
    thoughts, close, visible = trial.perfect.rpartition(CLOSE)
    # An expression or a matrix may be stated in other words than the example's answer.
    for gold in (stated_answer(trial.perfect), trial.example.answer):
        if gold and gold in visible:
            before, _, behind = visible.rpartition(gold)
            return f"{thoughts}{close}{before}{answer}{behind}"
    return None


def near_misses(answer: str) -> Iterator[str]:
    """Yields answers that are wrong by little; at least one."""
    misses = (miss for make in _MISSES for miss in make(answer))
    different = (miss for miss in dict.fromkeys(misses) if miss and not equal_answers(miss, answer))
    found = list(islice(different, MOST_MISSES))
    yield from found or ["nothing"]


def _only_thought(answer: str, wrong: str) -> str:
    """The working leads to the right answer, and the visible part states another."""
    return f"<think>It is {answer} = {answer}.</think>{wrong.rpartition(CLOSE)[2]}"


def _worthless(example: Example, misses: list[str]) -> Iterator[Variant]:
    yield Variant("nothing", "", "worthless")
    yield Variant("white space", " \n\n ", "worthless")
    yield Variant("padding", "<|endoftext|>" * 16, "worthless")
    yield Variant("one token again and again", "!" * 64, "worthless")
    if not _states(example.question, example.answer):
        yield Variant("the copied question", example.question, "worthless")
    yield Variant("an empty form", "<think></think><answer></answer>\\boxed{}", "worthless")
    behind = (f"{miss}0" for miss in misses if not equal_answers(f"{miss}0", example.answer))
    options = ", ".join([*misses, example.answer, *behind])
    yield Variant("every option listed", options, "worthless")
    yield from _bait()
    yield Variant("every option in one box", f"<think></think><answer>\\boxed{{{options}}}</answer>", "worthless")


def _bait() -> Iterator[Variant]:
    """Yields what a reward can choke on: a pattern that tries every split, a power that is worked out."""
    for what, bait in (("a number that is none", f"{'1' * 64}x"), ("a tower of powers", "9**9**9**9")):
        yield Variant(what, f"<think></think><answer>\\boxed{{{bait}}}</answer>", "worthless")
    yield Variant("tags that never close", "<think><answer>" * 500, "worthless")


def _states(question: str, answer: str) -> bool:
    """Says whether a question ends in its own answer, as `Simplify 6/8` does: copying that is no fault."""
    stated = lenient_answer(question)
    return stated is not None and equal_answers(stated, answer)


def _integers(answer: str) -> Iterator[str]:
    digits = answer.replace(",", "")
    if re.fullmatch(r"-?\d{1,30}", digits, re.ASCII):
        number = int(digits)
        # 1e-5 off is equal to checkers with a relative tolerance; 100 times to those that read percents.
        swapped = "-" * (number < 0) + digits.lstrip("-")[::-1]
        yield from (str(number + 1), f"{number}.00001", str(-number), str(100 * number), f"{number}1", swapped)


def _fractions(answer: str) -> Iterator[str]:
    if parts := re.fullmatch(r"(.*?)(\d{1,15})(\}\{|/)(\d{1,15})(.*)", answer, re.ASCII):
        head, top, bar, bottom, tail = parts.groups()
        yield f"{head}{top}{bar}{int(bottom) + 1}{tail}"
        yield f"{head}{int(top) + 1}{bar}{bottom}{tail}"
        yield f"{int(top) / int(bottom):.3f}" if int(bottom) else ""


def _decimals(answer: str) -> Iterator[str]:
    if re.fullmatch(r"-?\d{0,15}\.\d{1,15}", answer, re.ASCII):
        yield from (f"{answer}1", f"{float(answer) * 100:g}", f"-{answer}")


def _intervals(answer: str) -> Iterator[str]:
    if re.fullmatch(r"[(\[][^()\[\]]{1,100},[^()\[\]]{1,100}[)\]]", answer):
        swapped = {"(": "[", "[": "(", ")": "]", "]": ")"}
        yield from (swapped[answer[0]] + answer[1:], answer[:-1] + swapped[answer[-1]])


def _lists(answer: str) -> Iterator[str]:
    first, comma, _ = answer.partition(", ")
    if comma:
        yield first


def _letters(answer: str) -> Iterator[str]:
    if answer in ("A", "B", "C", "D", "E"):
        yield from "ABCDE"


def _nothing(answer: str) -> Iterator[str]:
    yield "nothing"


_MISSES: tuple[Callable[[str], Iterator[str]], ...] = (
    _integers, _fractions, _decimals, _intervals, _lists, _letters, _nothing,
)  # fmt: skip


Layout = Callable[[str, str], str]
"""Writes working and answer as a completion."""


def think_layout(work: str, answer: str) -> str:
    """The layout that all our rewards pay: thoughts, then the answer in tags and in a box."""
    return f"<think>\n{work}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"


def general_trials(layout: Layout = think_layout) -> tuple[RewardCase, ...]:
    """Returns problems whose answers are written in the ways that mathematics data sets write them."""
    return tuple(
        RewardCase(_example(f"general/{i}", question, answer), layout(work, answer))
        for i, (question, work, answer) in enumerate(_GENERAL)
    )


def trials_for(reward: str) -> tuple[RewardCase, ...]:
    """Returns the built-in trials for a reward: its own task's where it needs one."""
    if reward.startswith("matrix_"):
        return MATRIX_TRIALS
    return {"countdown": COUNTDOWN_TRIALS, "program_synthesis": PROGRAM_TRIALS}.get(reward, general_trials())


def _example(example_id: str, question: str, answer: str, **extra: Any) -> Example:
    return Example(example_id, ({"role": "user", "content": question},), answer, extra=extra)


_GENERAL = (
    ("What is six times seven?", "Six times seven is\n6 * 7 = 42.", "42"),
    ("Add 20 to -37.", "First -37 + 20,\nwhich is -17.", "-17"),
    ("How many seconds do 34 minutes have?", "A minute has 60 seconds,\nso 34 * 60 = 2040.", "2040"),
    ("What is one divided by two?", "Halve one,\nas a fraction.", r"\frac{1}{2}"),
    ("Simplify 6/8.", "Divide both by 2:\n6/8 = 3/4.", "3/4"),
    ("What is a quarter as a decimal?", "Divide 1 by 4:\n1 / 4 = 0.25.", "0.25"),
    ("For which x is -3 <= x < 2?", "The left end belongs to it,\nthe right end does not.", "[-3,2)"),
    ("Solve (x - 3)(x - 5) = 0.", "Either factor is zero,\nso both are roots.", "3, 5"),
    ("Who has the highest score, Evelyn with 8 or Brian with 5?", "8 is more than 5,\nso it is hers.", "Evelyn"),
)

COUNTDOWN_TRIALS = tuple(
    RewardCase(
        _example(f"countdown/{target}", f"Reach {target} with {numbers}.", answer, numbers=numbers, target=target),
        f"<think>\nTry some.\n</think>\n<answer>{answer}</answer>",
        tuple(f"<think>\nTry some.\n</think>\n<answer>{text}</answer>" for text in wrong),
    )
    for target, numbers, answer, wrong in (
        # A power, the target itself, code, a number twice, one left out.
        (9, [3, 2, 1], "(2 + 1) * 3", ("3**2*1", "9", "sum([3, 3, 3])", "3 * 3 * 1", "3 * (2 + 1) + 0")),
        (24, [4, 6, 1], "4 * 6 * 1", ("4 * 6", "24", "4 * 6 * 1 * 1", "max(24, 1)", "4 + 6 + 1")),
        (5, [1, 2, 8], "8 - 2 - 1", ("8 - 2", "5", "8 - 3", "int('5')", "1 + 2 + 8")),
    )
)  # fmt: skip

PROGRAM_TRIALS = tuple(
    RewardCase(
        _example(
            f"program/{rule}", f"f(1), f(2), f(3) are {values[:3]}. Give f(n).", rule,
            points=[[n, values[n - 1]] for n in (1, 2, 3)], unseen=[[n, values[n - 1]] for n in (4, 5)],
        ),
        f"<think>\nLook at the differences.\n</think>\n<answer>{rule}</answer>",
        tuple(f"<think>\nLook.\n</think>\n<answer>{text}</answer>" for text in wrong),
    )
    for rule, values, wrong in (
        # The last of each fits what is shown and nothing else.
        ("2*n + 1", (3, 5, 7, 9, 11), ("2*n", "7", "2*n + 1 + (n-1)*(n-2)*(n-3)")),
        ("n**2", (1, 4, 9, 16, 25), ("n*2", "n**n", "n**2 + (n-1)*(n-2)*(n-3)")),
    )
)  # fmt: skip

MATRIX_TRIALS = tuple(
    RewardCase(
        _example(f"matrix/{answer}", f"What is the inverse of {matrix}?", answer, matrix=matrix),
        f"<think>\nSwap, negate, divide.\n</think>\n<answer>{answer}</answer>",
        tuple(f"<think>\nSwap.\n</think>\n<answer>{text}</answer>" for text in wrong),
    )
    for matrix, answer, wrong in (
        ([[2, 0], [0, 4]], "[[1/2, 0], [0, 1/4]]", ("[[1/2, 0], [0, 1/3]]", "[[0, 0], [0, 0]]", "[[1/2, 0]]")),
        ([[1, 2], [3, 5]], "[[-5, 2], [3, -1]]", ("[[5, -2], [-3, 1]]", "[[1, 2], [3, 5]]", "[[1, 0], [0, 1]]")),
    )
)  # fmt: skip
