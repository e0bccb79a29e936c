"""Reward hacking: the reward rises, independent measures of accuracy do not.

The reward counts without the scores for format, as a share of what can be earned. It is compared with the accuracy of
the sampled completions, which earns nothing, and with greedy accuracy on held-out examples.
"""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import EvalPoint, RunHistory, score_metric
from lowmem_rl.health.significance import START, SURE, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import Shift, errors_between, shift
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import number

_NAME = "reward_hacking"
_RISE = 0.15
_FOLLOWED = 0.25
"""Share of the reward's rise that accuracy must have followed at its upper 95 % bound."""
_FALL = 0.05
_RELIABILITY = 0.8


def detect(history: RunHistory) -> HealthFinding | None:
    if (earned := _earned(history)) is None or earned.z < SURELY_MOVED or earned.change < _RISE:
        return None
    accuracy = shift(history.first("accuracy", START), history.last("accuracy", WINDOW))
    error = abs(accuracy.change / accuracy.z) if accuracy.z else 0.0
    falls = accuracy.z <= -SURE and accuracy.change <= -_FALL
    meanwhile = f"accuracy went from {accuracy.before:.2f} to {accuracy.after:.2f}"
    if accuracy.change + 2 * error >= _FOLLOWED * earned.change:
        if not (fallen := _held_out_fall(history)):
            return None
        before, after = fallen
        falls, meanwhile = True, f"held-out accuracy fell from {before.pass_at_1:.2f} to {after.pass_at_1:.2f}"
    return HealthFinding(
        "critical" if falls else "warning",
        f"The reward rose from {earned.before:.0%} to {earned.after:.0%} of what can be earned; {meanwhile}.",
        "Read the samples with the highest reward for what they do instead of answering; fix that reward "
        "(lowmem-rl rewards check).",
        _NAME,
        history.steps_of_last(WINDOW),
        confidence(earned.z, _RELIABILITY),
    )


def _earned(history: RunHistory) -> Shift | None:
    """Returns how the reward moved, as a share of what can be earned for anything but format."""
    weights, formats = history.config.rewards, history.format_rewards
    earnable = sum(weight for name, weight in weights.items() if weight > 0 and name not in formats)
    if not earnable:
        return None

    def earned(row: Row) -> float:
        for_format = sum(weights[name] * (number(row, score_metric(name)) or 0.0) for name in formats)
        return ((number(row, "reward") or 0.0) - for_format) / earnable

    return shift([earned(row) for row in history.rounds[:START]], [earned(row) for row in history.rounds[-WINDOW:]])


def _held_out_fall(history: RunHistory) -> tuple[EvalPoint, EvalPoint] | None:
    """Returns the first and the last evaluation if the last is surely worse."""
    if len(history.evaluations) < 2:
        return None
    before, after = history.evaluations[0], history.evaluations[-1]
    z = errors_between(before.pass_at_1, before.num_examples, after.pass_at_1, after.num_examples)
    return (before, after) if z <= -SURE and after.pass_at_1 <= before.pass_at_1 - _FALL else None


DETECTOR = Detector(_NAME, Requirements(START + WINDOW, ("reward", "accuracy")), detect)
