"""What a reward is: a function of one completion and its example.

`score` is one raw part, `reward` the weighted total. TRL's lists of lists occur only in `trl_adapter/reward_funcs.py`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, Literal

from lowmem_rl.config.user_code import in_one_line
from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_finding import Fault

ScoreFunction = Callable[[str, Example], float | None]
"""Scores the whole assistant turn, think tag included; None means: skipped.

Among other rewards a skipped score counts as 0, as in TRL; a completion is left out only if every reward skips it.
"""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions to score, with the example of each."""

    completions: Sequence[str]
    examples: Sequence[Example]
    completion_ids: Sequence[Sequence[int]] | None = None
    """The sampled ids, without what a chat template prefills; None for text that was not sampled here."""
    trainer_state: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of TRL's `TrainerState`; empty outside of training."""

    def each(self) -> Iterator["Rollout"]:
        """Yields the completions as rollouts of one."""
        for n in range(len(self.completions)):
            ids = self.completion_ids and self.completion_ids[n : n + 1]
            yield replace(
                self, completions=self.completions[n : n + 1], examples=self.examples[n : n + 1], completion_ids=ids
            )


BatchScore = Callable[[Rollout], Sequence[Any]]
"""Scores many completions at once, if that is cheaper than one by one or if the reward compares them; an error in place
of a score belongs to that completion only. Raises `RewardFailed` if the user's code fails on the whole."""

Kind = Literal["merit", "cost", "model", "control", "unknown"]
"""What a reward is for, and so what `check_rewards` may expect: a perfect completion earns the most (merit); a right
answer may lose something, for its length or for repetition (cost); the model scores (model); random on purpose
(control); a function in TRL's or verl's form, whose faults are only notes (unknown)."""

_MAX_SCORE = 3.4e38
"""Rewards are added up in float32, whose largest number is 3.403e38."""

_MOST_HANGS = 3
"""Completions of a batch that may each take as long as one score may."""

OnFailure = Callable[[RewardError], None]


class RewardFailed(RewardError):
    """A failure that names reward, example and completion, with the kind of fault."""

    def __init__(self, message: str, *, hint: str = "", fault: Fault = "fails") -> None:
        super().__init__(message, hint=hint)
        self.fault: Fault = fault


@dataclass(frozen=True, slots=True)
class Reward:
    """A named score with its range."""

    name: str
    score: ScoreFunction
    low: float = 0.0
    high: float = 1.0
    kind: Kind = "merit"
    score_batch: BatchScore | None = None
    source: str = ""
    """The user's `FILE.py:NAME` from which it was loaded, if any."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One completion's scores by reward name (None: skipped) and their weighted sum."""

    scores: dict[str, float | None]
    reward: float


@dataclass(frozen=True, slots=True)
class RewardSet:
    """Rewards with their weights, in a fixed order."""

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]

    def score(self, completion: str, example: Example, on_failure: OnFailure | None = None) -> Scored:
        """Scores one completion. If a reward fails, `on_failure` gets the error and the score is skipped.

        Raises `RewardError` instead if there is no `on_failure`.
        """
        checks = {reward.name: partial(score_with, reward, completion, example) for reward in self.rewards}
        scores = {name: _or_skip(check, on_failure) for name, check in checks.items()}
        total = sum(w * (s or 0.0) for w, s in zip(self.weights, scores.values(), strict=True))
        return Scored(scores=scores, reward=total)


def score_with(reward: Reward, completion: str, example: Example) -> float | None:
    """Applies one reward and checks what it returns.

    Raises `RewardFailed`, naming reward, example and completion, if the reward raises or returns anything but None or a
    number within its range that float32 can hold.
    """
    try:
        score = reward.score(completion, example)
    except RewardFailed:
        raise
    except RewardError as error:
        raise failure(reward.name, completion, example, f"failed: {str(error).rstrip('.')}", error.hint) from error
    except (Exception, SystemExit) as error:  # sys.exit(0) in a reward would end the run as if it had succeeded
        hint = "A reward is called with (completion, example). Run it by itself first, on these."
        raise failure(reward.name, completion, example, f"raised {in_one_line(error)}", hint) from error
    return _checked(reward, score, completion, example)


def score_all(reward: Reward, rollout: Rollout, on_failure: OnFailure | None = None) -> list[float | None]:
    """Applies one reward to many completions, at once if it can; each score is checked as in `score_with`.

    An error of a model's batch as a whole passes through: out of memory is not the fault of a completion.
    """
    return [_or_skip(check, on_failure) for check in _checks(reward, rollout)]


def try_all(reward: Reward, rollout: Rollout) -> list[float | RewardFailed | None]:
    """Returns what `score_all` does, with the failure in place of a score if there is none."""
    scores: list[float | RewardFailed | None] = []
    for check in _checks(reward, rollout):
        try:
            scores.append(check())
        except RewardFailed as error:
            scores.append(error)
    return scores


def _checks(reward: Reward, rollout: Rollout) -> list[Callable[[], float | None]]:
    rows = list(zip(rollout.completions, rollout.examples, strict=True))
    if reward.score_batch is None:
        return [partial(score_with, reward, *row) for row in rows]
    scores = _batch_scores(reward.score_batch, rollout)
    return [partial(_checked, reward, score, *row) for score, row in zip(scores, rows, strict=True)]


def _batch_scores(score_batch: BatchScore, rollout: Rollout) -> Sequence[Any]:
    """Scores a batch. If the user's code fails on the whole, each completion is tried alone: one costs only itself.

    After `_MOST_HANGS` that hang alone, the others are not tried.
    """
    try:
        return score_batch(rollout)
    except RewardFailed as error:
        if len(rollout.completions) == 1 or error.fault == "miscounts":
            return [error] * len(rollout.completions)
    scores: list[Any] = []
    for one in rollout.each():
        hung = [s for s in scores if isinstance(s, RewardFailed) and s.fault == "hangs"]
        scores += hung[-1:] if len(hung) >= _MOST_HANGS else _batch_scores(score_batch, one)
    return scores


def _checked(reward: Reward, score: object, completion: str, example: Example) -> float | None:
    if score is None:
        return None
    if isinstance(score, RewardFailed):
        raise score
    failed = partial(failure, reward.name, completion, example)
    if isinstance(score, RewardError):
        raise failed(f"failed: {str(score).rstrip('.')}", score.hint) from score
    value = number_of(score)
    if value is None:
        raise failed(f"returned {' '.join(repr(score).split()):.80}, which is neither None nor a number")
    if not abs(value) <= _MAX_SCORE:  # written so that it also refuses NaN
        raise failed(f"returned {value}, which is not a finite number of float32")
    if not reward.low <= value <= reward.high:
        raise failed(f"returned {value}, outside [{reward.low}, {reward.high}]")
    return value


def number_of(score: object) -> float | None:
    """Returns a score as a float, None for what is not one number.

    Truth values, NumPy's scalars, and arrays and tensors without a dimension are numbers, as they are for TRL.
    """
    if getattr(score, "shape", None) == () and hasattr(score, "item"):
        score = score.item()
    if not isinstance(score, Real | Decimal):
        return None
    try:
        return float(score)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _or_skip(score: Callable[[], float | None], on_failure: OnFailure | None) -> float | None:
    try:
        return score()
    except RewardError as error:
        if on_failure is None:
            raise
        on_failure(error)
        return None


def failure(
    name: str, completion: str, example: Example, what: str, hint: str = "", *, fault: Fault = "fails"
) -> RewardFailed:
    """Returns the error that names reward, example and completion."""
    return RewardFailed(
        f"Reward {name!r} {what} (example {example.id!r}, completion {completion[:80]!r}).",
        hint=hint or "A score is a number in the reward's range, or None to skip.",
        fault=fault,
    )
