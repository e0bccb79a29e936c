"""Rewards that need the model at work: its tokens, its limit, or what it thinks of an answer.

They are named, listed and weighed like all others; `bind_rewards` gives them the model once
that is loaded. This room never imports the engine: `ModelAccess` is what the engine fills in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example, Message
from lowmem_rl.rewards.reward import Kind, Reward, RewardSet


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A place in the assistant's turn, and the answer that is to stand there."""

    prompt: tuple[Message, ...]
    lead: str
    """The turn up to the answer, from its very beginning: think tags that a chat template opens are in it."""
    answer: str


AnswerNll = Callable[[Sequence[AnswerRow]], Sequence[float | RewardError]]
"""Returns the mean negative log-likelihood of each row's answer, in nats a token, under the base weights; for a row
that is too long for the model, the error that says so."""


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """What a reward may ask of the model; `engine.logprobs.view_of` makes one of a policy."""

    count_tokens: Callable[[str], int]
    max_completion_tokens: int
    answer_nll: AnswerNll


@dataclass(frozen=True, slots=True)
class ModelReward(Reward):
    """A reward without its model. Scoring raises `RewardError` until `bind` has made a `Reward` of it."""

    bind: Callable[[ModelAccess], Reward] = field(kw_only=True)


def model_reward(
    name: str, bind: Callable[[ModelAccess], Reward], *, low: float, high: float, kind: Kind
) -> ModelReward:
    """Returns a reward that can be named now and scores once it is bound; `bind` returns it with its range."""

    def score(completion: str, example: Example) -> float:
        raise RewardError(
            "it needs the model at work, and none is loaded",
            hint="It scores in `lowmem-rl train`; offline, take a reward that a text is enough for.",
        )

    return ModelReward(name, score, low, high, kind, bind=bind)


def bind_rewards(rewards: RewardSet, view: ModelAccess) -> RewardSet:
    """Returns the same rewards, each able to score."""
    bound = (reward.bind(view) if isinstance(reward, ModelReward) else reward for reward in rewards.rewards)
    return replace(rewards, rewards=tuple(bound))


def without_model(rewards: RewardSet) -> RewardSet:
    """Returns the rewards that a text is enough for: what can be tried before a model is loaded."""
    pairs = zip(rewards.rewards, rewards.weights, strict=True)
    kept = [(reward, weight) for reward, weight in pairs if not isinstance(reward, ModelReward)]
    return RewardSet(tuple(reward for reward, _ in kept), tuple(weight for _, weight in kept))
