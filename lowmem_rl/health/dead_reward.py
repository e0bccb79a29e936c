"""Reward stuck at zero: nothing is rewarded, or nothing is ever right, or one score is always 0.

By the rule of three, none of n leaves at most 3/n at 95 %: 150 completions without one mean less than 2 %.
"""

from collections.abc import Sequence
from math import ceil

from lowmem_rl.config.first_reward import ways_to_a_first_reward
from lowmem_rl.health.detector import Detector, HealthFinding, Requirements, Severity
from lowmem_rl.health.history import RunHistory, score_metric
from lowmem_rl.health.significance import WINDOW

_NAME = "dead_reward"
_FEWEST_COMPLETIONS = 150
PENALTIES = ("repetition", "soft_overlong")
"""Our rewards whose best value is 0."""


def detect(history: RunHistory) -> HealthFinding | None:
    rounds = rounds_needed(history)
    if len(history.rounds) < rounds:
        return None
    completions, ways = rounds * history.completions_per_round, ways_to_a_first_reward(history.config.rewards)

    def found(level: Severity, confidence: float, what: str, fix: str) -> HealthFinding:
        return HealthFinding(level, what, fix, _NAME, history.steps_of_last(rounds), confidence)

    if is_dead(history.last("reward", rounds), rounds) and not any(history.last("reward_std", rounds)):
        return found(
            "critical",
            0.95,
            f"The reward is 0 for all of the last {completions} completions: nothing is learned.",
            f"Check that a gold completion is rewarded: lowmem-rl rewards check. If it is, {ways}.",
        )
    if is_dead(history.last("accuracy", rounds), rounds):
        return found(
            "warning",
            0.85,
            f"None of the last {completions} completions is right: only their format is rewarded.",
            f"Measure other prompts and models by lowmem-rl probe; {ways}.",
        )
    rewarded = [name for name, weight in history.config.rewards.items() if weight > 0 and name not in PENALTIES]
    dead = [name for name in rewarded if is_dead(history.last(score_metric(name), rounds), rounds)]
    if not dead:
        return None
    return found(
        "note",
        0.5,
        f"{', '.join(dead)} scored 0 on all of the last {completions} completions; fine only if 0 is its best.",
        "Check that it can be earned: lowmem-rl rewards check",
    )


def rounds_needed(history: RunHistory) -> int:
    """Returns the rounds that hold enough completions to call a score dead."""
    return max(WINDOW, ceil(_FEWEST_COMPLETIONS / history.completions_per_round))


def is_dead(scores: Sequence[float], rounds: int) -> bool:
    """Returns whether each round has a score, and all of them are 0."""
    return len(scores) == rounds and not any(scores)


DETECTOR = Detector(_NAME, Requirements(WINDOW, ("accuracy",)), detect)
