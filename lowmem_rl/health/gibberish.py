"""Gibberish: kept completions that loop, that are no text, or that are written in scripts nobody asked in.

Whether the policy's own text became improbable is asked of entropy, under `learning_rate_too_high`.
"""

from collections.abc import Callable
from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, Sample
from lowmem_rl.health.significance import SURE, confidence
from lowmem_rl.health.text_quality import ALIEN_SHARE, alien_share, is_broken, scripts_of
from lowmem_rl.stats import errors_above

NAME = "gibberish"
FEWEST_PROMPTS = 4
NOTABLE, MOST = 0.25, 0.5
"""Shares of broken completions. A base model that has not learnt to stop loops in a few."""
CLEAR = 2.0
"""Standard errors above `MOST`, once it is sure that a notable share is broken: 7 of 8 prompts."""
RELIABILITY = 0.9


def detect(record: RunHistory) -> HealthFinding | None:
    groups = record.recent_groups(FEWEST_PROMPTS)
    is_gibberish = _judge(record)
    share = fmean(fmean(map(is_gibberish, group)) for group in groups)
    errors = errors_above(share, NOTABLE, len(groups))
    if errors < SURE:
        return None
    steps = [group[0].step for group in groups]
    return HealthFinding(
        "critical" if errors_above(share, MOST, len(groups)) >= CLEAR else "warning",
        f"{share:.0%} of the completions kept of {len(groups)} prompts loop or are no text.",
        _cure(record),
        NAME,
        (min(steps), max(steps)),
        confidence(errors, RELIABILITY),
    )


def _judge(record: RunHistory) -> Callable[[Sample], bool]:
    start = [sample for sample in record.samples if sample.step == record.samples[0].step]
    known = scripts_of(tuple(text for sample in start for text in (sample.prompt, sample.completion)))
    return lambda sample: is_broken(sample.completion) or alien_share(sample.completion, known) > ALIEN_SHARE


def _cure(record: RunHistory) -> str:
    """From the first step on it is not training's doing."""
    if record.step <= 1 or record.samples[0].step == record.samples[-1].step:
        return "Try the model untrained (lowmem-rl probe): its chat template, its weights or the sampler are wrong."
    return f"Lower optimizer.learning_rate to {record.config.optimizer.learning_rate / 10:g} and start before it."


SYMPTOM = Detector(NAME, Requirements(prompts=FEWEST_PROMPTS), detect)
