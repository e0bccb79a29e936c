"""KL blow-up: the policy is far from the base model. Read from `kl` in rows, else from `kl_nats` in evaluations.

Rows have it if the loss has a KL term; evaluations measure it against the base, with the adapter switched off.
"""

from itertools import islice
from statistics import median

from lowmem_rl.health.detector import AGO, Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers

_NAME = "kl_blowup"
FAR_NATS, _LOST_NATS = 2.0, 10.0
"""Per token. Axolotl's guide: 0 to 0.5 is healthy, above 2 too far (docs/training_stability.qmd)."""
_FEWEST = 3
"""Values of rows, whose median counts: the estimator (k3) has heavy tails."""


def detect(history: RunHistory) -> HealthFinding | None:
    measured = distance(history)
    if measured is None or (kl := measured[0]) < FAR_NATS:
        return None
    config = history.config
    beta = f"raise grpo.beta ({config.grpo.beta:g})" if config.grpo.beta else "set grpo.beta=0.01"
    return HealthFinding(
        "critical" if kl >= _LOST_NATS else "warning",
        f"The policy is {kl:.1f} nats a token away from the base model.",
        f"Lower optimizer.learning_rate to {config.optimizer.learning_rate / 3:.1g}, or {beta}.",
        _NAME,
        measured[1],
        0.9,
    )


def distance(history: RunHistory) -> tuple[float, tuple[int, int]] | None:
    """Returns how far the policy is from the base model, in nats per token, and the steps of that measurement."""
    rows = list(islice((row for row in reversed(history.rows[-AGO:]) if "kl" in row), _FEWEST))
    values = list(numbers(rows, "kl"))
    if len(values) == _FEWEST:
        return median(values), (rows[-1]["step"], rows[0]["step"])
    for evaluation in reversed(history.evaluations):  # one is enough: it is a mean over all its completions
        if evaluation.kl_nats is not None:
            return evaluation.kl_nats, (evaluation.step, evaluation.step)
    return None


DETECTOR = Detector(_NAME, Requirements(metrics=("kl",), evaluated="kl_nats"), detect)
