"""Truncation wall: most completions reach the length limit before they answer, so nothing can be rewarded.

Axolotl's guide calls a clipped ratio below 0.3 healthy and one above 0.8 a red flag (docs/training_stability.qmd).
"""

from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import SURE, WINDOW, confidence
from lowmem_rl.stats import errors_above

_NAME = "truncation_wall"
_COMMON, _NEARLY_ALL = 0.5, 0.8
_RELIABILITY = 0.95
_FEWEST = 5


def detect(history: RunHistory) -> HealthFinding | None:
    shares = history.last("truncated_share", WINDOW)
    share, prompts = fmean(shares), len(shares) * history.prompts_per_round
    errors = errors_above(share, _COMMON, prompts)
    if errors < SURE:
        return None
    limit = history.config.grpo.max_completion_tokens
    return HealthFinding(
        "critical" if errors_above(share, _NEARLY_ALL, prompts) >= SURE else "warning",
        f"{share:.0%} of completions are cut off at {limit} tokens, before they can answer.",
        f"Set grpo.max_completion_tokens to {2 * limit}; if the samples ramble without end, fix that first.",
        _NAME,
        history.steps_of_last(WINDOW),
        confidence(errors, _RELIABILITY),
    )


DETECTOR = Detector(_NAME, Requirements(_FEWEST, ("truncated_share",)), detect)
