"""Length explosion or collapse: completions double or halve, and accuracy does not gain by it."""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import START, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import shift

GROWN, SHRUNK = 2.0, 0.5
GAINED = 1.0
"""Standard errors from which accuracy counts as rising; length that pays is learning."""
RELIABILITY = 0.75


def look_for_explosion(record: RunHistory) -> HealthFinding | None:
    return _look(record, "length_explosion", is_more=True)


def look_for_collapse(record: RunHistory) -> HealthFinding | None:
    return _look(record, "length_collapse", is_more=False)


def _look(record: RunHistory, name: str, *, is_more: bool) -> HealthFinding | None:
    tokens = shift(record.first("completion_tokens", START), record.last("completion_tokens", WINDOW))
    accuracy = shift(record.first("accuracy", START), record.last("accuracy", WINDOW))
    moved = tokens.after >= GROWN * tokens.before if is_more else tokens.after <= SHRUNK * tokens.before
    if not moved or abs(tokens.z) < SURELY_MOVED or accuracy.z >= GAINED:
        return None
    return HealthFinding(
        "warning",
        f"Completions went from {tokens.before:.0f} to {tokens.after:.0f} tokens; accuracy did not gain by it "
        f"({accuracy.before:.2f}, then {accuracy.after:.2f}).",
        "Read the samples; against padding add --reward soft_overlong=0.5, or lower grpo.max_completion_tokens."
        if is_more
        else "Read the samples; look for a reward that a short completion earns more easily (lowmem-rl rewards check).",
        name,
        record.steps_of_last(WINDOW),
        confidence(tokens.z, RELIABILITY),
    )


NEEDS = Requirements(START + WINDOW, ("completion_tokens", "accuracy"), alike=True)
EXPLOSION = Detector("length_explosion", NEEDS, look_for_explosion)
COLLAPSE = Detector("length_collapse", NEEDS, look_for_collapse)
