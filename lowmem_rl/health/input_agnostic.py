"""Input-agnostic answers: the same completion for every prompt; entropy can look fine (RAGEN-2, arXiv 2604.06268).

Only completions that are equal to the letter count; a template with words of the question in it is not seen.
"""

from collections import Counter

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements, steps_of
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import confidence
from lowmem_rl.stats import errors_above

_NAME = "input_agnostic"
_FEWEST_PROMPTS, _FEWEST_ANSWERS = 8, 3
_BY_CHANCE = 0.5
"""Share of prompts with the same usual completion that a choice among few answers can give."""
_SURE_OF_EIGHT = 2.8
"""Standard errors at which 8 of 8 prompts are above it."""
_RELIABILITY = 0.85


def detect(history: RunHistory) -> HealthFinding | None:
    groups = history.recent_groups(_FEWEST_PROMPTS)
    if len({group[0].answer for group in groups}) < _FEWEST_ANSWERS:
        return None
    usual = Counter(Counter(sample.completion.strip() for sample in group).most_common(1)[0][0] for group in groups)
    text, prompts = usual.most_common(1)[0]
    errors = errors_above(prompts / len(groups), _BY_CHANCE, len(groups))
    if errors < _SURE_OF_EIGHT:
        return None
    short = text if len(text) <= 40 else text[:37] + "..."
    return HealthFinding(
        "warning",
        f"{prompts} of {len(groups)} different prompts are usually answered with the same text, {short!r}.",
        "Check that this text is not rewarded (lowmem-rl rewards score), and start again from before it.",
        _NAME,
        steps_of(groups),
        confidence(errors, _RELIABILITY),
    )


DETECTOR = Detector(_NAME, Requirements(prompts=_FEWEST_PROMPTS), detect)
