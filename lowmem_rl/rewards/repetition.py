"""What a completion loses for repeating itself."""

import re

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward

_NGRAM = 4
"""Words. Three, as in arXiv 2502.03373 (C.2) over tokens, would penalize honest work: `so we get` is repeated."""

_LONGEST_TEXT = 100_000
"""Characters that are read, counted from the end."""

# A run of one letter is one word of any length: cut at 16 characters, it repeats itself. CJK has no spaces.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w{1,16}|[^\w\s]")


def score_repetition(completion: str, example: Example) -> float:
    """Minus the share of word 4-grams that occurred before: 0 without any, near -1 in a loop."""
    words = _WORD.findall(completion[-_LONGEST_TEXT:])
    ngrams = list(zip(*(words[i:] for i in range(_NGRAM)), strict=False))
    return len(set(ngrams)) / len(ngrams) - 1 if ngrams else 0.0


REPETITION = Reward("repetition", score_repetition, low=-1.0, high=0.0, kind="cost")
