"""Late verdicts: symbolic comparisons that ran out of CPU time count as unequal, which is not known.

A few are expected: a model sometimes writes an endless sum. Many are answers, or gold answers, that cannot be compared.
"""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import WINDOW
from lowmem_rl.verify.pool import CPU_LIMIT_S

_NAME = "late_verdicts"
_FEWEST, _SOME, _MANY = 3, 0.01, 0.05
"""Verdicts, and verdicts per completion."""


def detect(history: RunHistory) -> HealthFinding | None:
    counts = history.last(_NAME, WINDOW)
    late, completions = round(sum(counts)), len(counts) * history.completions_per_round
    if late < _FEWEST or late < _SOME * completions:
        return None
    return HealthFinding(
        "warning" if late >= _MANY * completions else "note",
        f"{late} verdicts on {completions} completions took over {CPU_LIMIT_S:g} s of CPU time and counted as wrong.",
        "Look in samples.jsonl for answers that are endless sums or huge powers; leave out examples with such answers.",
        _NAME,
        history.steps_of_last(WINDOW),
        0.95,
    )


DETECTOR = Detector(_NAME, Requirements(metrics=(_NAME,)), detect)
