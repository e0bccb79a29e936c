"""Finds the answer in completions of tasks whose answers are objects (an expression, a matrix), not one text."""

from typing import Any

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.verify.extract import THINK_OPEN, after_thinking, strict_answer

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"


def stated_answer(completion: str) -> str | None:
    """Returns the content of the last `<answer>` pair after the thoughts, without its box, else the last box.

    Unclosed thoughts hide every answer.
    """
    visible = after_thinking(completion)
    if THINK_OPEN in visible:
        return None
    start, end = visible.rfind(ANSWER_OPEN), visible.rfind(ANSWER_CLOSE)
    if not 0 <= start < end:
        return strict_answer(completion)
    inner = visible[start + len(ANSWER_OPEN) : end]
    return strict_answer(inner) or inner.strip()


def required_extra(example: Example, name: str) -> Any:
    """Returns `example.extra[name]`. Raises `RewardError` if the example's task does not provide it."""
    if name not in example.extra:
        raise RewardError(
            f"the example has no extra[{name!r}]",
            hint=f"This reward is for a task that gives it; in a file of completions, add the column {name!r}.",
        )
    return example.extra[name]
