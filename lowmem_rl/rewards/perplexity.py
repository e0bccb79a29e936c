"""Does the completion make the gold answer likelier: a reward without a verifier, for answers in any form.

A frozen model reads the gold answer y twice: straight after the prompt x, and after the completion's
reasoning a. The reward is the relative drop of its length-normalised perplexity,

    (PPL(y|x) - PPL(y|x,a)) / PPL(y|x)  =  1 - exp(nll(y|x,a) - nll(y|x)),

so PPL(y|x) only sets the scale within a group, and a chain that leads away from y is worth less than
none. What the completion itself states as its answer is cut off: only the way there is judged.
The gain is how much likelier y became under the base weights, not whether y was said; pay `any_answer`
or `boxed_answer` beside it where answers can be verified.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess, ModelReward, model_reward
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.rewards.think_format import ANSWER_OPEN, CLOSE, OPEN

BOX_OPEN, BOX_CLOSE = "\\boxed{", "}"
"""The answer is read inside a box, closing brace included: without an end, 4 would do for 42."""


def relative_drop(nll: float, nll_without: float) -> float:
    """Returns (PPL(y|x) - PPL(y|x,a)) / PPL(y|x), from nats a token; below 1, unbounded below."""
    # Beyond 700 nats exp overflows; any lower bound has long been reached there.
    return -math.expm1(min(nll - nll_without, 700.0))


@dataclass(frozen=True, slots=True)
class PayTerms:
    """What a drop is paid: at least `low`; nothing under `threshold`; plus `absolute` / PPL(y|x,a)."""

    low: float = 0.0
    threshold: float = 0.0
    absolute: float = 0.0

    def score(self, nll: float, nll_without: float) -> float:
        """Returns the score of an answer's likelihood with and without the reasoning."""
        drop = max(self.low, relative_drop(nll, nll_without))
        return (0.0 if 0 < drop < self.threshold else drop) + self.absolute * math.exp(-nll)


def perplexity_reward(
    name: str = "perplexity", *, low: float = 0.0, threshold: float = 0.0, absolute: float = 0.0
) -> ModelReward:
    """Returns the reward. `low` is 0, where a bad chain is worth nothing, or -1, where it costs."""
    if low not in (0.0, -1.0):
        raise ValueError(f"low must be 0 or -1, not {low}")
    terms, high = PayTerms(low, threshold, absolute), 1.0 + absolute

    def bind(view: ModelAccess) -> Reward:
        """How much less perplexed the base model is by the gold answer behind the completion's reasoning."""
        scorer = Scorer(view, terms)
        return Reward(name, scorer.score, low, high, "model", scorer.score_batch)

    return model_reward(name, bind, low=low, high=high, kind="model")


class Scorer:
    """A bound reward: one row a completion, and one an example, which is read once a run."""

    def __init__(self, view: ModelAccess, terms: PayTerms) -> None:
        self.view = view
        self.terms = terms
        # By example; the base weights are frozen, so this holds for the whole run.
        self.without: dict[str, float | RewardError] = {}

    def score(self, completion: str, example: Example) -> float:
        """Scores one completion. Raises `RewardError` for one whose row is too long for the model."""
        score = self.score_batch([completion], [example])[0]
        if isinstance(score, RewardError):
            raise score
        return score

    def score_batch(self, completions: Sequence[str], examples: Sequence[Example]) -> list[float | RewardError]:
        """Scores a batch in one call of the model; a row that is too long for it has an error in its place."""
        new = {example.id: _row(example, bare_lead(example)) for example in examples if example.id not in self.without}
        rows = [_row(example, lead_of(text)) for text, example in zip(completions, examples, strict=True)]
        nlls = self.view.answer_nll([*new.values(), *rows])
        self.without |= dict(zip(new, nlls, strict=False))
        pairs = zip(nlls[len(new) :], examples, strict=True)
        return [self._score(nll, self.without[example.id]) for nll, example in pairs]

    def _score(self, nll: float | RewardError, without: float | RewardError) -> float | RewardError:
        if isinstance(nll, RewardError):
            return nll
        return without if isinstance(without, RewardError) else self.terms.score(nll, without)


def _row(example: Example, lead: str) -> AnswerRow:
    return AnswerRow(example.prompt, lead, example.answer + BOX_CLOSE)


def answer_text(example: Example) -> str:
    """Returns all that may follow a completion's reasoning: what closes it, and the answer in its box."""
    return CLOSE + BOX_OPEN + example.answer + BOX_CLOSE


def lead_of(completion: str) -> str:
    """Returns the assistant's turn up to the place of the answer: the reasoning, then an open box.

    Reasoning is what stands up to the last `</think>`; without one, what stands before a stated answer.
    """
    thoughts, close, _ = completion.rpartition(CLOSE)
    if close:
        return thoughts + close + BOX_OPEN
    if OPEN in completion:
        return completion + CLOSE + BOX_OPEN
    for mark in (ANSWER_OPEN, BOX_OPEN):
        completion = completion.partition(mark)[0]
    return completion + BOX_OPEN


def bare_lead(example: Example) -> str:
    """Returns the turn without reasoning, in the form that the prompt asks for."""
    asks_for_thoughts = any(OPEN in message["content"] for message in example.prompt)
    return (OPEN + CLOSE if asks_for_thoughts else "") + BOX_OPEN


PERPLEXITY = perplexity_reward()
PERPLEXITY_SIGNED = perplexity_reward("perplexity_signed", low=-1.0)
