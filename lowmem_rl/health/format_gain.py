"""Format up, accuracy down: the format is the easier part of the reward (open-r1 #255). Format alone is a note."""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, score_metric
from lowmem_rl.health.significance import START, SURE, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import Shift, shift

_NAME = "format_gain"
_RISE, _FALL = 0.1, 0.05
_LARGE_RISE, _NO_GAIN = 0.2, 0.05
_RELIABILITY = 0.85


def detect(history: RunHistory) -> HealthFinding | None:
    accuracy = shift(history.first("accuracy", START), history.last("accuracy", WINDOW))
    for name in history.format_rewards:
        before, after = history.first(score_metric(name), START), history.last(score_metric(name), WINDOW)
        if min(len(before), len(after)) >= START and (found := _compare(history, name, shift(before, after), accuracy)):
            return found
    return None


def _compare(history: RunHistory, name: str, form: Shift, accuracy: Shift) -> HealthFinding | None:
    if form.z < SURELY_MOVED or form.change < _RISE:
        return None
    falls = accuracy.z <= -SURE and accuracy.change <= -_FALL
    is_alone = form.change >= _LARGE_RISE and accuracy.change < _NO_GAIN and accuracy.z < 1
    if not (falls or is_alone):
        return None
    return HealthFinding(
        "warning" if falls else "note",
        f"{name} rose from {form.before:.2f} to {form.after:.2f} while accuracy "
        f"{'fell' if falls else 'did not rise'} ({accuracy.before:.2f}, then {accuracy.after:.2f}).",
        f"Halve rewards.{name} ({history.config.rewards[name]:g}), so that a right answer earns most.",
        _NAME,
        history.steps_of_last(WINDOW),
        confidence(form.z, _RELIABILITY),
    )


DETECTOR = Detector(_NAME, Requirements(START + WINDOW, ("accuracy",), comparable=True), detect)
