"""KL blow-up: the policy has left the base model. Read where rows hold `kl`, at every step or now and then."""

from itertools import islice
from statistics import median

from lowmem_rl.health.finding import AGO, Finding, Needs, Symptom
from lowmem_rl.health.record import Record, numbers

NAME = "kl_blowup"
FAR_NATS, LOST_NATS = 2.0, 10.0
"""A token, k3 estimator. Axolotl's guide: 0 to 0.5 is healthy, above 2 too far (docs/training_stability.qmd)."""
FEWEST = 3
"""Values, whose median counts because the estimator has heavy tails."""


def look(record: Record) -> Finding | None:
    rows = list(islice((row for row in reversed(record.rows[-AGO:]) if "kl" in row), FEWEST))
    values = list(numbers(rows, "kl"))
    if len(values) < FEWEST or (kl := median(values)) < FAR_NATS:
        return None
    config = record.config
    beta = f"raise grpo.beta ({config.grpo.beta:g})" if config.grpo.beta else "set grpo.beta=0.01"
    return Finding(
        NAME,
        "critical" if kl >= LOST_NATS else "warning",
        (rows[-1]["step"], rows[0]["step"]),
        0.9,
        f"The policy is {kl:.1f} nats a token away from the base model.",
        f"Lower optimizer.learning_rate to {config.optimizer.learning_rate / 3:.1g}, or {beta}.",
    )


SYMPTOM = Symptom(NAME, Needs(metrics=("kl",)), look)
