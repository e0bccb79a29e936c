"""Input-agnostic answers: the same completion for every prompt; entropy can look fine (RAGEN-2, arXiv 2604.06268).

Only completions that are equal to the letter count; a template with words of the question in it is not seen.
"""

from collections import Counter

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements, steps_of
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import confidence
from lowmem_rl.stats import errors_above

NAME = "input_agnostic"
FEWEST_PROMPTS, FEWEST_ANSWERS = 8, 3
BY_CHANCE = 0.5
"""Share of prompts with the same usual completion that a choice among few answers can give."""
SURE_OF_EIGHT = 2.8
"""Standard errors at which 8 of 8 prompts are above it."""
RELIABILITY = 0.85


def detect(history: RunHistory) -> HealthFinding | None:
    groups = history.recent_groups(FEWEST_PROMPTS)
    if len({group[0].answer for group in groups}) < FEWEST_ANSWERS:
        return None
    usual = Counter(Counter(sample.completion.strip() for sample in group).most_common(1)[0][0] for group in groups)
    text, prompts = usual.most_common(1)[0]
    errors = errors_above(prompts / len(groups), BY_CHANCE, len(groups))
    if errors < SURE_OF_EIGHT:
        return None
    short = text if len(text) <= 40 else text[:37] + "..."
    return HealthFinding(
        "warning",
        f"{prompts} of {len(groups)} different prompts are usually answered with the same text, {short!r}.",
        "Check that this text is not rewarded (lowmem-rl rewards score), and start again from before it.",
        NAME,
        steps_of(groups),
        confidence(errors, RELIABILITY),
    )


DETECTOR = Detector(NAME, Requirements(prompts=FEWEST_PROMPTS), detect)
