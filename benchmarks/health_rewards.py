"""Rewards with typical mistakes, for `health_failures.py`. Do not train with them."""

import re

from lowmem_rl import Example
from lowmem_rl.rewards.boxed import score_boxed

BOX = re.compile(r"\\boxed\{([^{}]*)\}")
CALLS_BEFORE_THE_BREAKDOWN = 900
calls = 0


def deaf(completion: str, example: Example) -> float:
    """Pays for words that this model never writes."""
    return float("final answer is" in completion.lower() and example.answer in completion)


def breaks_down(completion: str, example: Example) -> float:
    """Pays correct answers for a while, then nothing: its service is down, and its client returns 0."""
    global calls
    calls += 1
    return score_boxed(completion, example) if calls <= CALLS_BEFORE_THE_BREAKDOWN else 0.0


def mostly_sevens(completion: str, example: Example) -> float:
    """Pays one digit anywhere in the box: the best answer is the same for all questions."""
    boxes = BOX.findall(completion) or [""]
    box = boxes[-1].strip()
    return box.count("7") / max(4, len(box))


def longer_is_better(completion: str, example: Example) -> float:
    """Pays for every character, including those of tags."""
    return len(completion) / 100


def shorter_is_better(completion: str, example: Example) -> float:
    """Has a cost for every character."""
    return -len(completion) / 100


def format_without_thoughts(completion: str, example: Example) -> float:
    """Pays for an answer without working: the format is easy to keep if nothing is worked out."""
    return float(re.fullmatch(r"<think></think>\\boxed\{\d+\}", completion) is not None)


def format_on_lines_of_its_own(completion: str, example: Example) -> float:
    """Requires newlines around the think tags, which neither template nor model writes."""
    return float(re.match(r"<think>\n.*\n</think>\n", completion, re.DOTALL) is not None)
