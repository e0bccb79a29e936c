"""Rewards with the mistakes that people make, for `health_failures.py`. None of them is to be learnt from."""

import re

from lowmem_rl import Example
from lowmem_rl.rewards.boxed import score_boxed

BOX = re.compile(r"\\boxed\{([^{}]*)\}")
CALLS_BEFORE_THE_BREAKDOWN = 900
calls = 0


def deaf(completion: str, example: Example) -> float:
    """Waits for words that this model never says."""
    return float("final answer is" in completion.lower() and example.answer in completion)


def judge_that_breaks_down(completion: str, example: Example) -> float:
    """Pays right answers for a while, then nothing: a service behind it has gone, and its client says 0."""
    global calls
    calls += 1
    return score_boxed(completion, example) if calls <= CALLS_BEFORE_THE_BREAKDOWN else 0.0


def mostly_sevens(completion: str, example: Example) -> float:
    """Pays one digit wherever it stands in the box: the best answer is the same for all questions."""
    box = _boxed(completion)
    return box.count("7") / max(4, len(box))


def longer_is_better(completion: str, example: Example) -> float:
    """Pays for every character, the tags' own among them."""
    return len(completion) / 100


def shorter_is_better(completion: str, example: Example) -> float:
    """Takes something away for every character."""
    return -len(completion) / 100


def format_without_thoughts(completion: str, example: Example) -> float:
    """Wants the answer at once: the form is easy to keep where nothing is worked out."""
    return float(re.fullmatch(r"<think></think>\\boxed\{\d+\}", completion) is not None)


def format_on_lines_of_its_own(completion: str, example: Example) -> float:
    """Wants newlines around the think tags, which neither template nor model writes."""
    return float(re.match(r"<think>\n.*\n</think>\n", completion, re.DOTALL) is not None)


def _boxed(completion: str) -> str:
    found = BOX.findall(completion)
    return found[-1].strip() if found else ""
