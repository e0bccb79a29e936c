"""Entropy collapse: the policy has stopped trying anything else before it was right.

A policy that has learnt its task is sure of itself and rightly so; low entropy is called a collapse only where
accuracy leaves room and the groups hold no differences (0.01 nats is axolotl's red flag, docs/training_stability.qmd).
"""

from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import SOLVED, START, SURE, WINDOW, confidence
from lowmem_rl.stats import errors_above

NAME = "entropy_collapse"
COLLAPSED_NATS, COLLAPSED_SHARE = 0.01, 0.2
"""Mean entropy of a token, and the same as a share of the run's start."""
MOST_INFORMATIVE = 0.5
RELIABILITY = 0.8


def detect(record: RunHistory) -> HealthFinding | None:
    entropy, start = fmean(record.last("entropy", WINDOW)), fmean(record.first("entropy", START))
    if entropy > max(COLLAPSED_NATS, COLLAPSED_SHARE * start):
        return None
    groups = WINDOW * record.prompts_per_round
    informative, accuracy = (fmean(record.last(name, WINDOW)) for name in ("informative_share", "accuracy"))
    errors = -errors_above(informative, MOST_INFORMATIVE, groups)
    if min(errors, -errors_above(accuracy, SOLVED, groups)) < SURE:
        return None
    return HealthFinding(
        "warning",
        f"Entropy is {entropy:.3f} nats (at first {start:.3f}) at accuracy {accuracy:.2f}: nothing new is tried.",
        f"Lower optimizer.learning_rate ({record.config.optimizer.learning_rate:g}), or set grpo.epsilon_high=0.28.",
        NAME,
        record.steps_of_last(WINDOW),
        confidence(errors, RELIABILITY),
    )


SYMPTOM = Detector(NAME, Requirements(START + WINDOW, ("entropy", "informative_share", "accuracy")), detect)
