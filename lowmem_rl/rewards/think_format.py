"""Does the completion have the requested format, whatever its content."""

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import ANSWER_CLOSE, ANSWER_OPEN
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.verify.extract import THINK_CLOSE, THINK_OPEN, after_thinking


def score_think(completion: str, example: Example) -> float:
    """1 if there is one think block, at the start, with a visible answer after it, else 0.

    An empty block counts: the format must pay the same with and without work, or it would be a reward for length
    (a base model that thinks only to earn the format learns from it alone).
    """
    one_block = completion.count(THINK_OPEN) == completion.count(THINK_CLOSE) == 1
    at_start = completion.lstrip().startswith(THINK_OPEN)
    return float(one_block and at_start and bool(after_thinking(completion).strip()))


def score_answer_tags(completion: str, example: Example) -> float:
    """1 if the visible part ends in one `<answer>` pair with content, else 0; line breaks do not matter."""
    visible = after_thinking(completion).strip()
    one_pair = completion.count(ANSWER_OPEN) == completion.count(ANSWER_CLOSE) == 1
    if not one_pair or not visible.endswith(ANSWER_CLOSE):
        return 0.0
    return float(bool(visible.removesuffix(ANSWER_CLOSE).partition(ANSWER_OPEN)[2].strip()))


def score_tag_count(completion: str, example: Example) -> float:
    """A quarter for each of the four think and answer tags that occurs exactly once: a step towards both formats.

    Unlike open-r1's reward of this name it needs no line breaks around them.
    """
    return sum(completion.count(tag) == 1 for tag in (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)) / 4


THINK_FORMAT = Reward("think_format", score_think)
ANSWER_TAGS = Reward("answer_tags", score_answer_tags)
TAG_COUNT = Reward("tag_count", score_tag_count)
