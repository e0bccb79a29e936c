"""Length explosion or collapse: completions double or halve, and accuracy does not gain by it."""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import START, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import shift

_GROWN, _SHRUNK = 2.0, 0.5
_GAINED = 1.0
"""Standard errors from which accuracy counts as rising; length that raises it is learning."""
_RELIABILITY = 0.75


def detect_explosion(history: RunHistory) -> HealthFinding | None:
    fix = "Read the samples; against padding add --reward soft_overlong=0.5, or lower grpo.max_completion_tokens."
    return _detect(history, "length_explosion", _GROWN, fix)


def detect_collapse(history: RunHistory) -> HealthFinding | None:
    fix = "Read the samples; look for a reward that a short completion earns more easily (lowmem-rl rewards check)."
    return _detect(history, "length_collapse", _SHRUNK, fix)


def _detect(history: RunHistory, name: str, factor: float, fix: str) -> HealthFinding | None:
    tokens = shift(history.first("completion_tokens", START), history.last("completion_tokens", WINDOW))
    accuracy = shift(history.first("accuracy", START), history.last("accuracy", WINDOW))
    limit = factor * tokens.before
    moved = tokens.after >= limit if factor > 1 else tokens.after <= limit
    if not moved or abs(tokens.z) < SURELY_MOVED or accuracy.z >= _GAINED:
        return None
    return HealthFinding(
        "warning",
        f"Completions went from {tokens.before:.0f} to {tokens.after:.0f} tokens; accuracy did not gain by it "
        f"({accuracy.before:.2f}, then {accuracy.after:.2f}).",
        fix,
        name,
        history.steps_of_last(WINDOW),
        confidence(tokens.z, _RELIABILITY),
    )


_NEEDS = Requirements(START + WINDOW, ("completion_tokens", "accuracy"), comparable=True)
EXPLOSION = Detector("length_explosion", _NEEDS, detect_explosion)
COLLAPSE = Detector("length_collapse", _NEEDS, detect_collapse)
