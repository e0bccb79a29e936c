"""Test inputs for rewards: problems with a perfect completion, and what a policy may write instead.

A policy finds whatever else a reward pays for. `variants_of` tries it first: nothing at all, padding, the copied
question, every option at once, the answer without work or only in the thoughts, two answers, and near misses.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import stated_answer
from lowmem_rl.verify.equal import equal_answers
from lowmem_rl.verify.extract import THINK_CLOSE, THINK_OPEN, after_thinking, lenient_answer

PREFILL = "<think>\n"
"""How the chat templates of DeepSeek-R1, QwQ and thinking Qwen3.5 open the assistant's turn."""

_MOST_MISSES = 6
_COMPUTATION = re.compile(r"\d+(?: ?[-+*/×÷] ?\d+)+")


@dataclass(frozen=True, slots=True)
class RewardCase:
    """An example, the completion that earns everything, and some that are wrong in ways of this task."""

    example: Example
    perfect: str
    wrong: tuple[str, ...] = ()


Worth = Literal["wrong", "worthless", "right"]
"""A wrong answer in perfect form; no answer at all; the right answer in poor form."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A completion other than the perfect one, with a description and what it is worth."""

    what: str
    completion: str
    worth: Worth


def variants_of(case: RewardCase) -> Iterator[Variant]:
    """Yields what a policy may write instead of the perfect completion."""
    answer = case.example.answer
    misses = list(near_misses(answer))
    for miss in misses:
        if wrong := _with_answer(case, miss):
            yield Variant(f"the answer {miss!r} for {answer!r}", wrong, "wrong")
            thought = f"<think>It is {answer} = {answer}.</think>{after_thinking(wrong)}"
            yield Variant(f"the right answer in the thoughts and {miss!r} after them", thought, "wrong")
    for wrong in case.wrong:
        yield Variant(f"the completion {wrong[-60:]!r}", wrong, "wrong")
    yield from _worthless(case.example, misses)
    yield Variant("the box in the thoughts", f"<think>\\boxed{{{answer}}}</think>", "right")
    yield Variant("the boxed answer without work", f"\\boxed{{{answer}}}", "right")
    yield Variant("the bare answer", answer, "right")


def hedges_of(case: RewardCase) -> tuple[str, ...]:
    """Returns a wrong answer before the right one, and after it: at most one of them deserves the full score."""
    thoughts, close, right = case.perfect.rpartition(THINK_CLOSE)
    for miss in near_misses(case.example.answer):
        if (completion := _with_answer(case, miss)) is not None:
            wrong = after_thinking(completion)
            return f"{thoughts}{close}{wrong}\n{right}", f"{thoughts}{close}{right}\n{wrong}"
    return ()


def as_sampled(completion: str, prefill: str, *, closed: bool = True) -> str:
    """Returns a completion as a policy writes it whose turn is opened with `prefill`.

    One without thoughts closes them at once, unless `closed` is False.
    """
    if not prefill or completion.startswith(prefill):
        return completion
    if completion.startswith(THINK_OPEN):
        return prefill + completion.removeprefix(THINK_OPEN)
    return f"{prefill}{THINK_CLOSE if closed else ''}{completion}"


def near_misses(answer: str) -> Iterator[str]:
    """Yields answers that are nearly right; at least one."""
    misses = (miss for miss in dict.fromkeys(_candidates(answer)) if miss and not equal_answers(miss, answer))
    yield from list(islice(misses, _MOST_MISSES)) or ["nothing"]


def _candidates(answer: str) -> Iterator[str]:
    digits = answer.replace(",", "")
    if re.fullmatch(r"-?\d{1,30}", digits, re.ASCII):
        number = int(digits)
        # Checkers with a relative tolerance accept 1e-5 off; those that read percents accept 100 times.
        reversed_digits = "-" * (number < 0) + digits.lstrip("-")[::-1]
        yield from (str(number + 1), f"{number}.00001", str(-number), str(100 * number), f"{number}1", reversed_digits)
    if fraction := re.fullmatch(r"(.*?)(\d{1,15})(\}\{|/)(\d{1,15})(.*)", answer, re.ASCII):
        head, top, bar, bottom, tail = fraction.groups()
        yield f"{head}{top}{bar}{int(bottom) + 1}{tail}"
        yield f"{head}{int(top) + 1}{bar}{bottom}{tail}"
        yield f"{int(top) / int(bottom):.3f}" if int(bottom) else ""
    if re.fullmatch(r"-?\d{0,15}\.\d{1,15}", answer, re.ASCII):
        yield from (f"{answer}1", f"{float(answer) * 100:g}", f"-{answer}")
    if re.fullmatch(r"[(\[][^()\[\]]{1,100},[^()\[\]]{1,100}[)\]]", answer):
        swapped = {"(": "[", "[": "(", ")": "]", "]": ")"}
        yield from (swapped[answer[0]] + answer[1:], answer[:-1] + swapped[answer[-1]])
    if ", " in answer:
        yield answer.partition(", ")[0]
    yield from "ABCDE" if answer in ("A", "B", "C", "D", "E") else ()
    yield "nothing"


def _with_answer(case: RewardCase, answer: str) -> str | None:
    """Returns the perfect completion with another answer, or None if its own answer is not found in it."""
    thoughts, close, visible = case.perfect.rpartition(THINK_CLOSE)
    # An expression or a matrix may be stated in another form than the example's answer.
    for gold in (stated_answer(case.perfect), case.example.answer):
        if gold and gold in visible:
            before, _, after = visible.rpartition(gold)
            return f"{thoughts}{close}{before}{answer}{after}"
    return None


def _worthless(example: Example, misses: list[str]) -> Iterator[Variant]:
    # The list must not end with the answer: a lenient reward reads 0 in `nothing0`, which is right if the answer is 0.
    more = (f"{miss}0" for miss in misses if miss != "nothing" and not equal_answers(f"{miss}0", example.answer))
    options = ", ".join([*misses, example.answer, *more])
    boxed = "<think></think><answer>\\boxed{{{}}}</answer>".format
    completions = {
        "nothing": "",
        "white space": " \n\n ",
        "padding": "<|endoftext|>" * 16,
        "one repeated token": "!" * 64,
        "the copied question": example.question,
        "empty tags and an empty box": "<think></think><answer></answer>\\boxed{}",
        "every option listed": options,
        # A pattern that tries every split, and a power that is computed, may never end.
        "a number that is not one": boxed(f"{'1' * 64}x"),
        "a tower of powers": boxed("9**9**9**9"),
        "tags that never close": "<think><answer>" * 500,
        "every option in one box": boxed(options),
    }
    asked = _COMPUTATION.search(example.question)
    if asked and not equal_answers(asked[0], example.answer):
        completions["the computation that was asked for, not done"] = boxed(asked[0])
    stated = lenient_answer(example.question)
    if stated is not None and equal_answers(stated, example.answer):  # `Simplify 6/8`: copying it is not a fault
        del completions["the copied question"]
    for what, completion in completions.items():
        yield Variant(what, completion, "worthless")


Layout = Callable[[str, str], str]
"""Formats working and answer as a completion."""


def think_layout(work: str, answer: str) -> str:
    """The layout that all built-in rewards pay: thoughts, then the answer in tags and in a box."""
    return f"<think>\n{work}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"


def general_cases(layout: Layout = think_layout) -> tuple[RewardCase, ...]:
    """Returns problems whose answers have the forms that mathematics data sets use."""
    return tuple(
        RewardCase(_example(f"general/{i}", question, answer), layout(work, answer))
        for i, (question, work, answer) in enumerate(_GENERAL)
    )


def cases_for(reward: str) -> tuple[RewardCase, ...]:
    """Returns the built-in cases for a reward, from its own task if it needs one."""
    if reward.startswith("matrix_"):
        return _MATRIX_CASES
    return {"countdown": COUNTDOWN_CASES, "program_synthesis": _PROGRAM_CASES}.get(reward, general_cases())


def _example(example_id: str, question: str, answer: str, **extra: Any) -> Example:
    return Example(example_id, ({"role": "user", "content": question},), answer, extra=extra)


def _tagged_case(task: str, question: str, answer: str, work: str, wrong: tuple[str, ...], **extra: Any) -> RewardCase:
    tagged = f"<think>\n{work}\n</think>\n<answer>{{}}</answer>".format
    return RewardCase(_example(task, question, answer, **extra), tagged(answer), tuple(map(tagged, wrong)))


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
    ("What is 38 + 4?", "Carry the one:\n38 + 4 = 42.", "42"),
)

COUNTDOWN_CASES = tuple(
    _tagged_case(
        f"countdown/{target}", f"Reach {target} with {numbers}.", answer, "Try some.", wrong,
        numbers=numbers, target=target,
    )
    for target, numbers, answer, wrong in (
        # A power, the target itself, code, a number twice, one left out.
        (9, [3, 2, 1], "(2 + 1) * 3", ("3**2*1", "9", "sum([3, 3, 3])", "3 * 3 * 1", "3 * (2 + 1) + 0")),
        (24, [4, 6, 1], "4 * 6 * 1", ("4 * 6", "24", "4 * 6 * 1 * 1", "max(24, 1)", "4 + 6 + 1")),
        (5, [1, 2, 8], "8 - 2 - 1", ("8 - 2", "5", "8 - 3", "int('5')", "1 + 2 + 8")),
    )
)  # fmt: skip

_PROGRAM_CASES = tuple(
    _tagged_case(
        f"program/{rule}", f"f(1), f(2), f(3) are {values[:3]}. Give f(n).", rule, "Look at the differences.", wrong,
        points=[[n, values[n - 1]] for n in (1, 2, 3)], unseen=[[n, values[n - 1]] for n in (4, 5)],
    )
    for rule, values, wrong in (
        # The last of each fits only the points that are shown.
        ("2*n + 1", (3, 5, 7, 9, 11), ("2*n", "7", "2*n + 1 + (n-1)*(n-2)*(n-3)")),
        ("n**2", (1, 4, 9, 16, 25), ("n*2", "n**n", "n**2 + (n-1)*(n-2)*(n-3)")),
    )
)  # fmt: skip

_MATRIX_CASES = tuple(
    _tagged_case(f"matrix/{answer}", f"What is the inverse of {matrix}?", answer, "Swap, negate, divide.", wrong)
    for matrix, answer, wrong in (
        ([[2, 0], [0, 4]], "[[1/2, 0], [0, 1/4]]", ("[[1/2, 0], [0, 1/3]]", "[[0, 0], [0, 0]]", "[[1/2, 0]]")),
        ([[1, 2], [3, 5]], "[[-5, 2], [3, -1]]", ("[[5, -2], [-3, 1]]", "[[1, 2], [3, 5]]", "[[1, 0], [0, 1]]")),
    )
)
