"""Rewards that need the loaded model: its tokens, its limit, or its likelihood of an answer.

They are named, listed and weighted like all others; `bind_rewards` gives them the model after it is loaded.
This room never imports the engine, which provides the `ModelAccess`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example, Message
from lowmem_rl.rewards.reward import Reward, RewardSet, ScoreFunction


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A position in the assistant's turn, and the answer that is read there."""

    prompt: tuple[Message, ...]
    lead: str
    """The turn up to the answer, from its very beginning: with the think tags that a chat template opens."""
    answer: str


AnswerNll = Callable[[Sequence[AnswerRow]], Sequence[float | RewardError]]
"""Returns the mean negative log-likelihood of each row's answer, in nats per token, under the base weights, or an
error for a row that is too long for the model."""


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """What a reward may ask of the model; `engine.logprobs.view_of` returns one for a policy."""

    count_tokens: Callable[[str], int]
    max_completion_tokens: int
    answer_nll: AnswerNll


def _no_model(completion: str, example: Example) -> float:
    raise RewardError(
        "it needs the model, and none is loaded",
        hint="It scores in `lowmem-rl train`; offline, use a reward that needs only the text.",
    )


@dataclass(frozen=True, slots=True)
class ModelReward(Reward):
    """A reward without its model: scoring raises `RewardError`. `bind` returns the `Reward` that can score."""

    score: ScoreFunction = _no_model
    bind: Callable[[ModelAccess], Reward] = field(kw_only=True)


def bind_rewards(rewards: RewardSet, model: ModelAccess) -> RewardSet:
    """Returns the same rewards, each able to score."""
    bound = (reward.bind(model) if isinstance(reward, ModelReward) else reward for reward in rewards.rewards)
    return replace(rewards, rewards=tuple(bound))


def without_model(rewards: RewardSet) -> RewardSet:
    """Returns the rewards that need only the text: those that can score before a model is loaded."""
    pairs = zip(rewards.rewards, rewards.weights, strict=True)
    kept = [(reward, weight) for reward, weight in pairs if not isinstance(reward, ModelReward)]
    return RewardSet(tuple(reward for reward, _ in kept), tuple(weight for _, weight in kept))
