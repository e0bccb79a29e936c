"""Rewards that were in use and silently wrong, rebuilt from public reports: `check_rewards` must catch each.

Each is as small as its fault allows. None is for training.
"""

import contextlib
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.adversarial_cases import COUNTDOWN_CASES, PREFILL, RewardCase, general_cases
from lowmem_rl.rewards.expressions import compute, parse
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.rewards.reward_check import check_reward
from lowmem_rl.rewards.reward_finding import RewardFinding
from lowmem_rl.verify.extract import after_thinking

_ZOO: list["BrokenReward"] = []
_LIMIT_S = 1.0
"""For one score: what hangs here never ends."""


@dataclass(frozen=True, slots=True)
class BrokenReward:
    """A broken reward, where it was seen, and the cases that show its fault."""

    reward: Reward
    story: str
    source: str
    cases: tuple[RewardCase, ...]
    prefill: str


def check_zoo() -> list[tuple[BrokenReward, list[RewardFinding]]]:
    """Returns every reward of the zoo with the findings of `check_reward`."""
    return [(b, check_reward(b.reward, b.cases, b.prefill, limit_s=_LIMIT_S)) for b in _ZOO]


_Score = Callable[[str, Example], Any]


def _broken(
    source: str, *, cases: tuple[RewardCase, ...] | None = None, prefill: str = "", hangs: bool = False
) -> Callable[[_Score], _Score]:
    """Adds a function to the zoo; its docstring is its story. One that hangs is checked as a user's file is."""

    def add(score: _Score) -> _Score:
        file = f"{__file__}:{score.__name__}" if hangs else ""
        reward = Reward(score.__name__.strip("_"), score, low=-float("inf"), high=float("inf"), source=file)
        story = " ".join((score.__doc__ or "").split())
        _ZOO.append(BrokenReward(reward, story, source, cases or general_cases(), prefill))
        return score

    return add


def _reasoning_layout(work: str, answer: str) -> str:
    """The layout that the prompts of the copied notebooks ask for, word for word."""
    return f"<reasoning>\n{work}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


def _box(text: str) -> str:
    """Reads a box up to the first closing brace."""
    found = re.findall(r"\\boxed\{([^}]+)\}", text)
    return found[-1] if found else ""


def _greedy_box(completion: str) -> str:
    """Reads the last visible box up to the last closing brace of its line."""
    found = re.findall(r"\\boxed\{(.*)\}", after_thinking(completion))
    return found[-1] if found else ""


def _mentions(text: str, answer: str) -> float:
    """Returns 1 if an answer occurs anywhere in a text as a separate word."""
    return float(bool(re.search(rf"(?<![\w.-]){re.escape(answer)}(?!\.?\w)", text)))


@_broken("willccbb's GRPO demo, as shipped in Unsloth's Qwen2.5 notebook", cases=general_cases(_reasoning_layout))
def _soft_format(completion: str, example: Example) -> float:
    """A dot does not match line breaks: 0 on the very layout that the prompt asks for."""
    return 0.5 if re.match(r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>", completion) else 0.0


@_broken("willccbb's GRPO demo, as shipped in Unsloth's Qwen2.5 notebook", cases=general_cases(_reasoning_layout))
def _strict_format(completion: str, example: Example) -> float:
    """Fires on reasoning of one line only."""
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$"
    return 0.5 if re.match(pattern, completion) else 0.0


@_broken("huggingface/trl#6966, huggingface/open-r1#560", prefill=PREFILL)
def _think_format_of_the_sampled_part(completion: str, example: Example) -> float:
    """The chat template opens the thoughts, and the reward sees only what was sampled after them."""
    sampled = completion.removeprefix(PREFILL)
    return float(bool(re.match(r"^<think>(?!.*<think>)(.*?)</think>.*$", sampled, re.DOTALL)))


@_broken("modelscope/ms-swift#10147: MathORM until September 2026")
def _boxes_compared_to_the_first_brace(completion: str, example: Example) -> float:
    r"""Gold and given box are both read as `\frac{1`: 1/2 equals 1/3."""
    return float(_box(completion) == _box(f"\\boxed{{{example.answer}}}"))


@_broken("Soup, trainer/rewards.py; huggingface/trl#5026")
def _box_read_to_the_first_brace(completion: str, example: Example) -> float:
    r"""`\boxed{\frac{1}{2}}` is read as `\frac{1`: right fractions are never paid."""
    return float(_box(after_thinking(completion)) == example.answer)


@_broken("PrimeIntellect-ai/verifiers#1028")
def _whole_text_without_a_box(completion: str, example: Example) -> float:
    """Without a box the whole text is searched for the answer: mentioning it somewhere is enough."""
    box = re.findall(r"\\boxed\{(.*)\}", after_thinking(completion))
    return _mentions(box[-1] if box else completion, example.answer)


@_broken("PrimeIntellect-ai/prime-envs#689; open-instruct's MathVerifier")
def _any_candidate(completion: str, example: Example) -> float:
    """Every box is a candidate and one right one is enough: two answers are always right."""
    return float(example.answer in re.findall(r"\\boxed\{(.*?)\}(?:\n|$)", after_thinking(completion)))


@_broken("AI-Hypercomputer/maxtext#4150")
def _tags_without_the_box_inside(completion: str, example: Example) -> float:
    """The prompt asks for a box within the answer tags, and their content is compared with the bare answer."""
    tags = re.findall(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    return float(bool(tags) and tags[-1].strip() == example.answer)


@_broken("huggingface/open-r1#86, #293, #566; huggingface/cookbook#335")
def _unparsable_gold_paid(completion: str, example: Example) -> float:
    """A gold answer that the parser does not know pays everything."""
    try:
        gold = Fraction(example.answer)
    except ValueError:
        return 1.0
    with contextlib.suppress(ValueError):
        return float(Fraction(_box(after_thinking(completion))) == gold)
    return 0.0


@_broken("Qwen-VL-Series-Finetune#234; huggingface/open-r1#503")
def _column_that_is_not_there(completion: str, example: Example) -> float:
    """The gold answer is looked up in a column that the data does not have, or that is empty."""
    return float(_box(completion) == example.extra.get("solution"))


@_broken("volcengine/verl#5635; Math-Verify#50")
def _time_limit_by_signal(completion: str, example: Example) -> float:
    """Signals work only on the main thread, and the error is swallowed: every answer is wrong on other threads."""
    try:
        old = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, old)
        return float(after_thinking(completion).endswith(f"\\boxed{{{example.answer}}}\n</answer>"))
    except ValueError:
        return 0.0


@_broken("volcengine/verl#5839: training hangs at step 2", hangs=True)
def _no_time_limit(completion: str, example: Example) -> float:
    """Nothing bounds the reading of an answer: one long malformed number, and the run hangs."""
    given = _box(after_thinking(completion))
    return float(bool(re.fullmatch(r"(-?\d+,?)+", given)) and given == example.answer)


@_broken("pytorch/torchtune, dev/grpo/rewards.py")
def _error_that_was_never_imported(completion: str, example: Example) -> float:
    """The handler names a module that is not imported: the first text that is not XML ends the run."""
    try:
        if not completion.startswith("<"):
            raise ValueError(completion)
        return float(f">{example.answer}<" in completion)
    except ET.ParseError:  # type: ignore[name-defined]  # noqa: F821
        return 0.0


@_broken("McGill-NLP/nano-aha-moment")
def _every_error_is_a_zero(completion: str, example: Example) -> float:
    """One handler around the whole reward hides its own mistake: here, a list compared as a number."""
    try:
        return float(re.findall(r"\\boxed\{(.*)\}", completion) - example.answer == 0)  # type: ignore[operator]
    except Exception:  # noqa: BLE001
        return 0.0


@_broken("Jiayi-Pan/TinyZero, countdown.py", cases=COUNTDOWN_CASES)
def _countdown_by_its_characters(completion: str, example: Example) -> float:
    """The allowed characters permit `**`, which is not an allowed operator (there eval hangs on 9**9**9**9)."""
    answers = re.findall(r"<answer>(.*?)</answer>", completion)
    if not answers or not re.fullmatch(r"[\d+\-*/().\s]+", answers[-1]):
        return 0.0
    if sorted(map(int, re.findall(r"\d+", answers[-1]))) != sorted(example.extra["numbers"]):
        return 0.1
    return 1.0 if compute(parse(answers[-1])) == example.extra["target"] else 0.1


@_broken("Math-Verify 0.9.0 on whole completions: gold 12, `<think>3*4 = 12</think><answer>12.5</answer>`")
def _thoughts_read_for_the_answer(completion: str, example: Example) -> float:
    """Any value in the whole text is enough: the thoughts are paid, not the answer after them."""
    return _mentions(completion, example.answer)


@_broken("Qwen2.5-Math, evaluation/grader.py: open and closed intervals")
def _brackets_ignored(completion: str, example: Example) -> float:
    """[-3, 2) equals (-3, 2]: brackets are stripped before comparing."""
    given = _greedy_box(completion)
    return float(bool(given) and given.strip("()[]") == example.answer.strip("()[]"))


@_broken("Qwen2.5-Math and DeepSeek-Math graders: relative tolerance, include_percentage")
def _tolerance_and_percentages(completion: str, example: Example) -> float:
    """Numbers within 1e-4, and 100 times or a hundredth of any number, are equal."""
    given = _greedy_box(completion)
    with contextlib.suppress(ValueError):
        gold, value = float(Fraction(example.answer)), float(Fraction(given))
        return float(any(abs(value - g) <= 1e-4 * abs(g) for g in (gold, gold / 100, gold * 100)))
    return float(given == example.answer)


@_broken("Qwen2.5-Math, DeepSeek-Math and Minerva graders: gold `sqrt67,-sqrt85`, given `sqrt67`")
def _one_of_several_answers(completion: str, example: Example) -> float:
    """A part of the gold answer is paid as all of it."""
    given = _greedy_box(completion)
    return float(bool(given) and given in (example.answer, *example.answer.split(", ")))
