"""Trainer and sampler give the same tokens different log-probs: two models, but the loss assumes one.

The sampler compares itself with the trainer in each rollout and falls back if rounding does not explain the gap; rows
hold `sampler_fell_back` then. vLLM and `generate` are not compared.
"""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers

_NAME = "sampler_mismatch"


def detect(history: RunHistory) -> HealthFinding | None:
    """Checks the last round alone: a fallback corrects the next one, and a run may roll back to before it."""
    last = history.rounds[-1:]
    if not any(row.get("sampler_fell_back") for row in last):
        return None
    gap = next((f"{nats:.2g}" for nats in numbers(last, "rollout_gap_nats")), "an unknown number of")
    steps = history.steps_of_last(1)
    return HealthFinding(
        "warning",
        f"The sampler's log-probs of its own tokens differed by {gap} nats a token from the trainer's in step "
        f"{steps[0]}. Since then it computes in the model's own way, slower.",
        "Another model than the trained one wrote that step's completions: please report it with engine.json; "
        "rollout.engine=generate avoids it.",
        _NAME,
        steps,
        0.95,
    )


DETECTOR = Detector(_NAME, Requirements(metrics=("rollout_gap_nats",)), detect)
