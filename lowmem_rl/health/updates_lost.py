"""Updates lost: bfloat16 weights whose updates are smaller than half a step of their number format do not move.

bfloat16 has 8 significant bits: an update below 2^-9 of its weight is rounded away, at each step again.
"""

from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers

_NAME, _METRIC = "updates_lost", "lost_update_share"
_STEPS = 10
_MOST = 0.5


def detect(history: RunHistory) -> HealthFinding | None:
    """Looks at the last steps: a warm-up's smaller updates pass."""
    trainable, last = history.config.trainable, history.rows[-_STEPS:]
    shares = list(numbers(last, _METRIC))
    if trainable.dtype != "bfloat16" or len(shares) < _STEPS or fmean(shares) <= _MOST:
        return None
    rate = history.config.optimizer.learning_rate
    return HealthFinding(
        "warning",
        f"{fmean(shares):.0%} of the numbers that learn do not change in a step: at a learning rate of {rate:g} their "
        "updates are rounded away, because they are stored in bfloat16.",
        'Set trainable.dtype="float32", which loses none, or raise optimizer.learning_rate.',
        _NAME,
        (last[0]["step"], last[-1]["step"]),
        0.95,
    )


DETECTOR = Detector(_NAME, Requirements(metrics=(_METRIC,)), detect)
