"""Finds the answer of tasks whose answers are objects (an expression, a matrix) and not one text."""

from typing import Any

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.think_format import ANSWER_CLOSE, ANSWER_OPEN, CLOSE, OPEN
from lowmem_rl.verify.extract import strict_answer


def stated_answer(completion: str) -> str | None:
    """Returns what the last `<answer>` pair behind the thoughts holds, out of its box, else the last box.

    Thoughts that never end hide everything behind their opening.
    """
    visible = completion.rpartition(CLOSE)[2]
    if OPEN in visible:
        return None
    start, end = visible.rfind(ANSWER_OPEN), visible.rfind(ANSWER_CLOSE)
    if not 0 <= start < end:
        return strict_answer(completion)
    inner = visible[start + len(ANSWER_OPEN) : end]
    return strict_answer(inner) or inner.strip()


def fact(example: Example, name: str) -> Any:
    """Returns `example.extra[name]`. Raises `RewardError` where the task is not one that gives it."""
    if name not in example.extra:
        raise RewardError(
            f"the example has no extra[{name!r}]",
            hint=f"This reward is for a task that gives it; in a file of completions, add the column {name!r}.",
        )
    return example.extra[name]
