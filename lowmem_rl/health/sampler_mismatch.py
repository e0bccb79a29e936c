"""Trainer and sampler give the same tokens different log-probs: two models, where the loss assumes one.

The sampler compares itself with the trainer in each rollout and falls back where rounding does not explain the gap;
rows hold `sampler_fell_back` then. vLLM and `generate` are not compared.
"""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers

NAME = "sampler_mismatch"


def detect(record: RunHistory) -> HealthFinding | None:
    """Looks at the last round alone: a fall-back mends the next one, and a run may go back behind it."""
    last = record.rounds[-1:]
    if not any(row.get("sampler_fell_back") for row in last):
        return None
    gap = next(numbers(last, "rollout_gap_nats"), None)
    steps = record.steps_of_last(1)
    return HealthFinding(
        "warning",
        f"The sampler's log-probs of its own tokens lay {'no number of' if gap is None else f'{gap:.2g}'} nats a token "
        f"from the trainer's in step {steps[0]}. Since then it computes in the model's own way, slower.",
        "Another model than the trained one wrote that step's completions: please report it with engine.json; "
        "rollout.engine=generate avoids it.",
        NAME,
        steps,
        0.95,
    )


SYMPTOM = Detector(NAME, Requirements(metrics=("rollout_gap_nats",)), detect)
