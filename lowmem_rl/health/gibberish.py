"""Gibberish: kept completions that loop, that are not text, or that are in scripts that nobody asked for.

Whether the policy finds its own text improbable shows in entropy: see `learning_rate_too_high`.
"""

from statistics import fmean

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements, steps_of
from lowmem_rl.health.history import RunHistory, Sample
from lowmem_rl.health.significance import SURE, confidence
from lowmem_rl.health.text_quality import ALIEN_SHARE, alien_share, is_broken, scripts_of
from lowmem_rl.stats import errors_above

_NAME = "gibberish"
_FEWEST_PROMPTS = 4
_NOTABLE, _MOST = 0.25, 0.5
"""Shares of broken completions. A base model that has not learned to stop loops in a few."""
_CLEAR = 2.0
"""Standard errors above `_MOST`, once it is certain that a notable share is broken: 7 of 8 prompts."""
_RELIABILITY = 0.9


def detect(history: RunHistory) -> HealthFinding | None:
    first = history.samples[0].step
    start = [sample for sample in history.samples if sample.step == first]
    known = scripts_of(tuple(text for sample in start for text in (sample.prompt, sample.completion)))

    def is_gibberish(sample: Sample) -> bool:
        return is_broken(sample.completion) or alien_share(sample.completion, known) > ALIEN_SHARE

    groups = history.recent_groups(_FEWEST_PROMPTS)
    share = fmean(fmean(map(is_gibberish, group)) for group in groups)
    errors = errors_above(share, _NOTABLE, len(groups))
    if errors < SURE:
        return None
    # From the first step on, training is not the cause.
    fix = (
        "Try the model untrained (lowmem-rl probe): its chat template, its weights or the sampler are wrong."
        if history.step <= 1 or first == history.samples[-1].step
        else f"Lower optimizer.learning_rate to {history.config.optimizer.learning_rate / 10:g} and start before it."
    )
    return HealthFinding(
        "critical" if errors_above(share, _MOST, len(groups)) >= _CLEAR else "warning",
        f"{share:.0%} of the completions kept of {len(groups)} prompts loop or are not text.",
        fix,
        _NAME,
        steps_of(groups),
        confidence(errors, _RELIABILITY),
    )


DETECTOR = Detector(_NAME, Requirements(prompts=_FEWEST_PROMPTS), detect)
