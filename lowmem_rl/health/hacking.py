"""Reward hacking: what is paid rises, what is measured besides does not.

Paid is the reward without the scores for form, as a share of what can be earned. Beside it stand the accuracy of the
sampled completions, judged by nobody who pays, and greedy accuracy on held-out examples.
"""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.format_rewards import form_scores
from lowmem_rl.health.history import EvalPoint, RunHistory, numbers, score_in
from lowmem_rl.health.significance import START, SURE, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import Shift, errors_between, shift
from lowmem_rl.storage.run_dir import Row

NAME = "reward_hacking"
RISE = 0.15
FOLLOWED = 0.25
"""Share of the reward's rise that accuracy must have followed at its upper 95 % bound."""
FALL = 0.05
RELIABILITY = 0.8


def detect(record: RunHistory) -> HealthFinding | None:
    if (paid := _paid(record)) is None or paid.z < SURELY_MOVED or paid.change < RISE:
        return None
    accuracy = shift(record.first("accuracy", START), record.last("accuracy", WINDOW))
    error = abs(accuracy.change / accuracy.z) if accuracy.z else 0.0
    falls = accuracy.z <= -SURE and accuracy.change <= -FALL
    beside = f"accuracy went from {accuracy.before:.2f} to {accuracy.after:.2f}"
    if accuracy.change + 2 * error >= FOLLOWED * paid.change:
        if not (fallen := _held_out_fall(record)):
            return None
        before, after = fallen
        falls, beside = True, f"held-out accuracy fell from {before.pass_at_1:.2f} to {after.pass_at_1:.2f}"
    return HealthFinding(
        "critical" if falls else "warning",
        f"What is paid rose from {paid.before:.0%} to {paid.after:.0%} of what can be earned; {beside}.",
        "Read the best paid samples for what they do instead of answering; mend that reward (lowmem-rl rewards check).",
        NAME,
        record.steps_of_last(WINDOW),
        confidence(paid.z, RELIABILITY),
    )


def _paid(record: RunHistory) -> Shift | None:
    weights, forms = record.config.rewards, form_scores(record)
    earnable = sum(weight for name, weight in weights.items() if weight > 0 and name not in forms)
    if not earnable:
        return None

    def paid(row: Row) -> float:
        form = sum(weights[name] * score_in(row, name) for name in forms)
        return (next(numbers([row], "reward"), 0.0) - form) / earnable

    return shift([paid(row) for row in record.rounds[:START]], [paid(row) for row in record.rounds[-WINDOW:]])


def _held_out_fall(record: RunHistory) -> tuple[EvalPoint, EvalPoint] | None:
    """Returns the first and the last evaluation where the last is surely worse."""
    if len(record.evaluations) < 2:
        return None
    before, after = record.evaluations[0], record.evaluations[-1]
    z = errors_between(before.pass_at_1, before.num_examples, after.pass_at_1, after.num_examples)
    return (before, after) if z <= -SURE and after.pass_at_1 <= before.pass_at_1 - FALL else None


SYMPTOM = Detector(NAME, Requirements(START + WINDOW, ("reward", "accuracy")), detect)
