"""Entropy collapse: the policy stopped exploring before it was right.

A policy that has learned its task has low entropy, too; it is a collapse only if accuracy is low and the rewards within
groups do not differ (0.01 nats is axolotl's red flag, docs/training_stability.qmd).
"""

from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import SOLVED, START, SURE, WINDOW, confidence
from lowmem_rl.stats import errors_above

_NAME = "entropy_collapse"
_COLLAPSED_NATS, _COLLAPSED_SHARE = 0.01, 0.2
"""Mean entropy of a token, and the same as a share of the run's start."""
_MOST_INFORMATIVE = 0.5
_RELIABILITY = 0.8


def detect(history: RunHistory) -> HealthFinding | None:
    entropy, start = fmean(history.last("entropy", WINDOW)), fmean(history.first("entropy", START))
    if entropy > max(_COLLAPSED_NATS, _COLLAPSED_SHARE * start):
        return None
    groups = WINDOW * history.prompts_per_round
    informative, accuracy = (fmean(history.last(name, WINDOW)) for name in ("informative_share", "accuracy"))
    errors = -errors_above(informative, _MOST_INFORMATIVE, groups)
    if min(errors, -errors_above(accuracy, SOLVED, groups)) < SURE:
        return None
    return HealthFinding(
        "warning",
        f"Entropy is {entropy:.3f} nats (at first {start:.3f}) at accuracy {accuracy:.2f}: nothing new is explored.",
        f"Lower optimizer.learning_rate ({history.config.optimizer.learning_rate:g}), or set grpo.epsilon_high=0.28.",
        _NAME,
        history.steps_of_last(WINDOW),
        confidence(errors, _RELIABILITY),
    )


_NEEDS = Requirements(START + WINDOW, ("entropy", "informative_share", "accuracy"), settled=True)
DETECTOR = Detector(_NAME, _NEEDS, detect)
