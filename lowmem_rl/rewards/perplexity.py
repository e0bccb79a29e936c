"""Does the completion make the gold answer more likely: a reward without a verifier, for answers in any form.

A frozen model reads the gold answer y twice: directly after the prompt x, and after the completion's reasoning a. The
reward is the relative drop of its length-normalized perplexity,

    (PPL(y|x) - PPL(y|x,a)) / PPL(y|x)  =  1 - exp(nll(y|x,a) - nll(y|x)),

so PPL(y|x) only sets the scale within a group, and reasoning that leads away from y is worth less than none. The answer
that the completion itself states is cut off: only the reasoning before it is scored. The gain is how much more likely y
became under the base weights, not whether y was stated; add `any_answer` or `boxed_answer` if answers can be verified.
"""

import math
from dataclasses import dataclass

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import ANSWER_OPEN
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess, ModelReward
from lowmem_rl.rewards.reward import Reward, Rollout
from lowmem_rl.verify.extract import THINK_CLOSE, THINK_OPEN

_BOX_OPEN, _BOX_CLOSE = "\\boxed{", "}"
"""The answer is read inside a box, closing brace included: without an end, 4 would do for 42."""


def relative_drop(nll: float, nll_without: float) -> float:
    """Returns (PPL(y|x) - PPL(y|x,a)) / PPL(y|x), from nats per token; below 1, unbounded below."""
    # Beyond 700 nats exp overflows, far below any lower bound.
    return -math.expm1(min(nll - nll_without, 700.0))


@dataclass(frozen=True, slots=True)
class PayTerms:
    """How a drop is paid: at least `low`; nothing under `threshold`; plus `absolute` / PPL(y|x,a)."""

    low: float = 0.0
    threshold: float = 0.0
    absolute: float = 0.0

    def score(self, nll: float, nll_without: float) -> float:
        """Returns the score from an answer's negative log-likelihood with and without the reasoning."""
        drop = max(self.low, relative_drop(nll, nll_without))
        return (0.0 if 0 < drop < self.threshold else drop) + self.absolute * math.exp(-nll)


def perplexity_reward(
    name: str = "perplexity", *, low: float = 0.0, threshold: float = 0.0, absolute: float = 0.0
) -> ModelReward:
    """Returns the reward. `low` is 0, so that bad reasoning is worth nothing, or -1, so that it costs.

    Raises `ValueError` for any other `low`.
    """
    if low not in (0.0, -1.0):
        raise ValueError(f"low must be 0 or -1, not {low}")
    terms, high = PayTerms(low, threshold, absolute), 1.0 + absolute

    def bind(model: ModelAccess) -> Reward:
        """How much less perplexed the base model is by the gold answer after the completion's reasoning."""
        scorer = _PerplexityScorer(model, terms)
        return Reward(name, scorer.score, low, high, "model", scorer.score_batch)

    return ModelReward(name, low=low, high=high, kind="model", bind=bind)


class _PerplexityScorer:
    """A bound reward: reads one row per completion, and one per example and run."""

    def __init__(self, model: ModelAccess, terms: PayTerms) -> None:
        self.model = model
        self.terms = terms
        # By example id; the base weights are frozen, so this holds for the whole run.
        self.without: dict[str, float | RewardError] = {}

    def score(self, completion: str, example: Example) -> float:
        """Scores one completion. Raises `RewardError` if its row is too long for the model."""
        score = self.score_batch(Rollout([completion], [example]))[0]
        if isinstance(score, RewardError):
            raise score
        return score

    def score_batch(self, rollout: Rollout) -> list[float | RewardError]:
        """Scores a batch in one call of the model, with an error for each row that is too long for it."""
        examples = rollout.examples
        new = {example.id: _row(example, bare_lead(example)) for example in examples if example.id not in self.without}
        rows = [_row(example, lead_of(text)) for text, example in zip(rollout.completions, examples, strict=True)]
        nlls = self.model.answer_nll([*new.values(), *rows])
        self.without |= dict(zip(new, nlls, strict=False))
        scores: list[float | RewardError] = []
        for nll, example in zip(nlls[len(new) :], examples, strict=True):
            without = self.without[example.id]
            errors = [value for value in (nll, without) if isinstance(value, RewardError)]
            scores.append(errors[0] if errors else self.terms.score(nll, without))  # type: ignore[arg-type]
        return scores


def _row(example: Example, lead: str) -> AnswerRow:
    return AnswerRow(example.prompt, lead, example.answer + _BOX_CLOSE)


def answer_text(example: Example) -> str:
    """Returns the longest text that may follow a completion's reasoning: its closing tag and the boxed answer."""
    return THINK_CLOSE + _BOX_OPEN + example.answer + _BOX_CLOSE


def lead_of(completion: str) -> str:
    """Returns the assistant's turn up to the answer: the reasoning, then an open box.

    The reasoning ends with the last `</think>`; without one, before a stated answer.
    """
    thoughts, close, _ = completion.rpartition(THINK_CLOSE)
    if close:
        return thoughts + close + _BOX_OPEN
    if THINK_OPEN in completion:
        return completion + THINK_CLOSE + _BOX_OPEN
    for mark in (ANSWER_OPEN, _BOX_OPEN):
        completion = completion.partition(mark)[0]
    return completion + _BOX_OPEN


def bare_lead(example: Example) -> str:
    """Returns the turn without reasoning, in the form that the prompt asks for."""
    asks_for_thoughts = any(THINK_OPEN in message["content"] for message in example.prompt)
    return (THINK_OPEN + THINK_CLOSE if asks_for_thoughts else "") + _BOX_OPEN


PERPLEXITY = perplexity_reward()
PERPLEXITY_SIGNED = perplexity_reward("perplexity_signed", low=-1.0)
