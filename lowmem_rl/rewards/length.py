"""Rewards for length, in tokens of the model and relative to its limit: both are known once it is loaded.

Tokens are counted in the decoded completion; if sampling chose an unusual tokenization, that differs by a few.
"""

import math

from lowmem_rl.example import Example
from lowmem_rl.rewards.boxed import score_boxed
from lowmem_rl.rewards.model_reward import ModelAccess, ModelReward
from lowmem_rl.rewards.reward import Reward

_SOFT_SHARE = 0.2
"""The last share of the limit, in which the penalty grows: 4,096 of 20,480 tokens in DAPO (arXiv 2503.14476, 3.4)."""

_RIGHT_SHORT, _RIGHT_LONG, _WRONG_LONG, _WRONG_SHORT = 1.0, 0.5, -0.5, -1.0
"""Ends of the cosine, as in TRL: a right answer is better short; a wrong one is better long, because it searched."""


def overlong_penalty(tokens: int, limit: int) -> float:
    """0 up to four fifths of the limit, from there down to -1 at the limit (DAPO, equation 13)."""
    soft = _SOFT_SHARE * limit
    return max(-1.0, min(0.0, (limit - soft - tokens) / soft))


def cosine_score(tokens: int, limit: int, *, right: bool) -> float:
    """From the score of the short end to that of the long end, along half a cosine (arXiv 2502.03373, C.1)."""
    short, long = (_RIGHT_SHORT, _RIGHT_LONG) if right else (_WRONG_SHORT, _WRONG_LONG)
    return long + (short - long) * (1 + math.cos(math.pi * min(1.0, tokens / limit))) / 2


def _bind_overlong(model: ModelAccess) -> Reward:
    """0 up to four fifths of the token limit, from there down to -1 at the limit."""

    def score(completion: str, example: Example) -> float:
        return overlong_penalty(model.count_tokens(completion), model.max_completion_tokens)

    return Reward("soft_overlong", score, low=-1.0, high=0.0, kind="cost")


def _bind_cosine(model: ModelAccess) -> Reward:
    """Right answers from 1 (short) to 0.5 (long), wrong ones from -1 (short) to -0.5 (long), in tokens."""

    def score(completion: str, example: Example) -> float:
        right = score_boxed(completion, example) == 1.0
        return cosine_score(model.count_tokens(completion), model.max_completion_tokens, right=right)

    return Reward("cosine_length", score, low=_WRONG_SHORT, high=_RIGHT_SHORT, kind="cost")


SOFT_OVERLONG = ModelReward("soft_overlong", low=-1.0, high=0.0, kind="cost", bind=_bind_overlong)
COSINE_LENGTH = ModelReward("cosine_length", low=_WRONG_SHORT, high=_RIGHT_SHORT, kind="cost", bind=_bind_cosine)
