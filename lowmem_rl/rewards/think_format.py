"""Does the completion have the asked shape, whatever it says."""

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward

OPEN, CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"


def score_think(completion: str, example: Example) -> float:
    """1 if there is one think block, at the start, with a visible answer behind it, else 0.

    An empty block counts: the format must pay the same with and without work, or it would
    be a reward for length (a base that only thinks to earn the format learns from it alone).
    """
    one_block = completion.count(OPEN) == 1 and completion.count(CLOSE) == 1
    if not one_block or not completion.lstrip().startswith(OPEN):
        return 0.0
    return float(bool(completion.partition(CLOSE)[2].strip()))


THINK_FORMAT = Reward("think_format", score_think)


def score_answer_tags(completion: str, example: Example) -> float:
    """1 if the visible part ends in one `<answer>` pair that holds something, else 0; line breaks do not matter."""
    visible = completion.rpartition(CLOSE)[2].strip()
    one_pair = completion.count(ANSWER_OPEN) == 1 and completion.count(ANSWER_CLOSE) == 1
    if not one_pair or not visible.endswith(ANSWER_CLOSE):
        return 0.0
    return float(bool(visible.removesuffix(ANSWER_CLOSE).partition(ANSWER_OPEN)[2].strip()))


def score_tag_count(completion: str, example: Example) -> float:
    """A quarter for each of the four think and answer tags that stands exactly once: the way to both forms.

    Unlike open-r1's reward of this name it asks for no line breaks around them.
    """
    return sum(completion.count(tag) == 1 for tag in (OPEN, CLOSE, ANSWER_OPEN, ANSWER_CLOSE)) / 4


ANSWER_TAGS = Reward("answer_tags", score_answer_tags)
TAG_COUNT = Reward("tag_count", score_tag_count)
