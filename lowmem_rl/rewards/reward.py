"""What a reward is: a function of one completion and its example.

`score` is one raw part, `reward` the weighted total. TRL's lists of lists occur only in `trl_adapter/reward_funcs.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Literal

from lowmem_rl.config.user_code import in_one_line
from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_finding import Fault

ScoreFunction = Callable[[str, Example], float | None]
"""Scores the whole assistant turn, think tag included; None means: skipped.

Among other rewards a skipped score counts as 0, as in TRL; a completion is left out only if every reward skips it.
"""

BatchScore = Callable[[Sequence[str], Sequence[Example]], Sequence[float | RewardError | None]]
"""Scores many completions at once, if that is cheaper than one by one; an error in place of a score belongs to that
completion only."""

Kind = Literal["merit", "cost", "model", "control"]
"""What a reward is for, and so what `check_rewards` may expect: a perfect completion earns the most (merit); a right
answer may lose something, for its length or for repetition (cost); the model scores (model); random on purpose
(control)."""

_MAX_SCORE = 3.4e38
"""Rewards are added up in float32, whose largest number is 3.403e38."""

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
        raise failure(reward, completion, example, f"failed: {str(error).rstrip('.')}", error.hint) from error
    except (Exception, SystemExit) as error:  # sys.exit(0) in a reward would end the run as if it had succeeded
        raise failure(reward, completion, example, f"raised {in_one_line(error)}") from error
    return _checked(reward, score, completion, example)


def score_all(
    reward: Reward, completions: Sequence[str], examples: Sequence[Example], on_failure: OnFailure | None = None
) -> list[float | None]:
    """Applies one reward to many completions, at once if it can; each score is checked as in `score_with`.

    An error of the batch as a whole passes through: out of memory is not the fault of a completion.
    """
    if reward.score_batch is None:
        checks = [partial(score_with, reward, *row) for row in zip(completions, examples, strict=True)]
    else:
        scores = reward.score_batch(completions, examples)
        checks = [partial(_checked, reward, *row) for row in zip(scores, completions, examples, strict=True)]
    return [_or_skip(check, on_failure) for check in checks]


def _checked(reward: Reward, score: object, completion: str, example: Example) -> float | None:
    if score is None:
        return None
    if isinstance(score, RewardError):
        raise failure(reward, completion, example, f"failed: {str(score).rstrip('.')}", score.hint) from score
    if isinstance(score, bool) or not isinstance(score, Real):  # Real includes NumPy's numbers
        raise failure(reward, completion, example, f"returned {score!r:.80}, which is neither None nor a number")
    try:
        value = float(score)
    except OverflowError:  # an integer of hundreds of digits
        value = math.inf
    if not abs(value) <= _MAX_SCORE:  # written so that it also refuses NaN
        raise failure(reward, completion, example, f"returned {value}, which is not a finite number of float32")
    if not reward.low <= value <= reward.high:
        raise failure(reward, completion, example, f"returned {value}, outside [{reward.low}, {reward.high}]")
    return value


def _or_skip(score: Callable[[], float | None], on_failure: OnFailure | None) -> float | None:
    try:
        return score()
    except RewardError as error:
        if on_failure is None:
            raise
        on_failure(error)
        return None


def failure(
    reward: Reward, completion: str, example: Example, what: str, hint: str = "", *, fault: Fault = "fails"
) -> RewardFailed:
    """Returns the error that names reward, example and completion."""
    return RewardFailed(
        f"Reward {reward.name!r} {what} (example {example.id!r}, completion {completion[:80]!r}).",
        hint=hint or "A reward takes (completion, example) and returns a number in its range, or None to skip.",
        fault=fault,
    )
