"""Is the answer right: strictly, in a box, or leniently, in any common form.

A task's settings `task.percent` and `task.boxes` are in the example's extra fields, unless they are the default.
"""

from typing import cast

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.verify import verify
from lowmem_rl.verify.equal import Percent
from lowmem_rl.verify.extract import Boxes, lenient_answer, strict_answer


def score_boxed(completion: str, example: Example) -> float:
    """1 if the last balanced box after the thoughts (or as `task.boxes` says) holds the answer, else 0."""
    return _score(strict_answer(completion, _boxes(example)), example)


def score_any(completion: str, example: Example) -> float:
    """1 if the text after the thoughts gives the answer in any common form, else 0."""
    return _score(lenient_answer(completion, _boxes(example)), example)


def _score(given: str | None, example: Example) -> float:
    percent = cast("Percent", example.extra.get("task.percent", "both"))
    return float(given is not None and any(verify(given, gold, percent) for gold in example.golds))


def _boxes(example: Example) -> Boxes:
    return cast("Boxes", example.extra.get("task.boxes", "last"))


BOXED_ANSWER = Reward("boxed_answer", score_boxed)
ANY_ANSWER = Reward("any_answer", score_any)
