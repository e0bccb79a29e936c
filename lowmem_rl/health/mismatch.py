"""Trainer and sampler give the same tokens different log-probs: two models, where the loss assumes one.

Axolotl's guide: below 0.1 nats is healthy, above 1 the sampler holds other weights (docs/training_stability.qmd).
"""

from statistics import median

from lowmem_rl.health.finding import Finding, Needs, Symptom
from lowmem_rl.health.record import Record

NAME = "sampler_mismatch"
NOTABLE_NATS, OTHER_WEIGHTS_NATS = 0.1, 1.0
ROUNDS, FEWEST = 5, 3


def look(record: Record) -> Finding | None:
    gaps = [abs(gap) for gap in record.last("rollout_gap_nats", ROUNDS)]
    if len(gaps) < FEWEST or (gap := median(gaps)) < NOTABLE_NATS:
        return None
    return Finding(
        NAME,
        "critical" if gap >= OTHER_WEIGHTS_NATS else "warning",
        record.steps_of_last(ROUNDS),
        0.9,
        f"The sampler's log-probs of its own tokens are {gap:.2g} nats off the trainer's.",
        "Sample with rollout.engine=generate and rollout.temperature=1; an adapter applied twice looks like this too.",
    )


SYMPTOM = Symptom(NAME, Needs(FEWEST, ("rollout_gap_nats",)), look)
