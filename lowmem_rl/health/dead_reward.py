"""Reward stuck at zero: nothing is paid for, or nothing is ever right, or one score never says anything.

By the rule of three, none of n leaves at most 3/n at 95 %: 150 completions without one mean less than 2 %.
"""

from collections.abc import Sequence
from math import ceil

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import WINDOW

NAME = "dead_reward"
FEWEST_COMPLETIONS = 150
PENALTIES = ("repetition", "soft_overlong")
"""Rewards of ours of which 0 is the best."""


def detect(record: RunHistory) -> HealthFinding | None:
    rounds = rounds_to_tell(record)
    if len(record.rounds) < rounds:
        return None
    return _nothing_paid(record, rounds) or _never_right(record, rounds) or _silent_score(record, rounds)


def rounds_to_tell(record: RunHistory) -> int:
    """Returns the rounds that hold enough completions to call a score dead."""
    return max(WINDOW, ceil(FEWEST_COMPLETIONS / record.completions_per_round))


def is_dead(scores: Sequence[float], rounds: int) -> bool:
    return len(scores) == rounds and not any(scores)


def _nothing_paid(record: RunHistory, rounds: int) -> HealthFinding | None:
    if not is_dead(record.last("reward", rounds), rounds) or any(record.last("reward_std", rounds)):
        return None
    return HealthFinding(
        "critical",
        f"The reward is 0 for all of the last {rounds * record.completions_per_round} completions: nothing is learnt.",
        "See whether a gold completion is paid: lowmem-rl rewards check. If it is, take easier prompts.",
        NAME,
        record.steps_of_last(rounds),
        0.95,
    )


def _never_right(record: RunHistory, rounds: int) -> HealthFinding | None:
    if not is_dead(record.last("accuracy", rounds), rounds):
        return None
    return HealthFinding(
        "warning",
        f"None of the last {rounds * record.completions_per_round} completions is right: only their form is paid.",
        "Take easier prompts, or a model that solves some of them: lowmem-rl probe measures it.",
        NAME,
        record.steps_of_last(rounds),
        0.85,
    )


def _silent_score(record: RunHistory, rounds: int) -> HealthFinding | None:
    paying = [name for name, weight in record.config.rewards.items() if weight > 0 and name not in PENALTIES]
    dead = [name for name in paying if is_dead(record.last_scores(name, rounds), rounds)]
    if not dead:
        return None
    completions = rounds * record.completions_per_round
    return HealthFinding(
        "note",
        f"{', '.join(dead)} scored 0 on all of the last {completions} completions; right only if 0 is its best.",
        "See whether it can be earned at all: lowmem-rl rewards check",
        NAME,
        record.steps_of_last(rounds),
        0.5,
    )


SYMPTOM = Detector(NAME, Requirements(WINDOW, ("accuracy",)), detect)
