"""Template mismatch: the chat template and the rewards, or the template and the sampler, do not agree on the form.

Seen as a format score of 0 on completions that do think in tags, because the template had opened the tag
(TRL #6966, open-r1 #560); as turns that go on in another role's voice; as completions that answer early and never stop.
"""

from collections.abc import Callable
from statistics import fmean

from lowmem_rl.health.dead_reward import is_dead, rounds_to_tell
from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.format_rewards import form_scores
from lowmem_rl.health.history import RunHistory, Sample
from lowmem_rl.health.significance import SURE, confidence
from lowmem_rl.stats import errors_above

NAME = "template_mismatch"
FEWEST_PROMPTS = 4
USUAL = 0.25
"""Share of completions that may look so without anything being wrong."""
ENDED_TAGS = ("</think>", "</answer>")
ROLES = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "\nHuman:", "\nUser:", "\nuser\n", "\nassistant\n", "[INST]")
ANSWERED = ("\\boxed{", "</answer>", "####")
RELIABILITY = 0.85


def detect(record: RunHistory) -> HealthFinding | None:
    return _unpaid_tags(record) or _strange_voice(record) or _no_stop(record)


def _unpaid_tags(record: RunHistory) -> HealthFinding | None:
    rounds = rounds_to_tell(record)
    for name in form_scores(record):
        if is_dead(record.last_scores(name, rounds), rounds):
            what = f"{name} is 0 for every completion, yet {{share:.0%}} of those kept close a think or answer tag."
            cure = "Let the reward see what the template opens, or choose another task.prompt: lowmem-rl rewards check"
            return _if_common(record, _has_ended_a_tag, what, cure)
    return None


def _strange_voice(record: RunHistory) -> HealthFinding | None:
    what = "{share:.0%} of the completions kept go on as another speaker."
    cure = "The model's end of turn is not among its stop tokens: take the model's own chat template and tokenizer."
    return _if_common(record, lambda sample: any(role in sample.completion for role in ROLES), what, cure)


def _no_stop(record: RunHistory) -> HealthFinding | None:
    what = "{share:.0%} of the completions kept have answered, and run on to the limit."
    cure = "The model does not end its turn: take its own chat template, or its instruct version."
    return _if_common(record, _runs_on, what, cure)


def _has_ended_a_tag(sample: Sample) -> bool:
    """Cut off, a completion may have had no time for the form."""
    return not sample.truncated and any(tag in sample.completion for tag in ENDED_TAGS)


def _runs_on(sample: Sample) -> bool:
    """A quarter of the text or more stands behind the first answer: working may come before it."""
    before = sample.completion[: len(sample.completion) * 3 // 4]
    return sample.truncated and any(mark in before for mark in ANSWERED)


def _if_common(record: RunHistory, has_it: Callable[[Sample], bool], what: str, cure: str) -> HealthFinding | None:
    groups = record.recent_groups(FEWEST_PROMPTS)
    share = fmean(fmean(map(has_it, group)) for group in groups)
    errors = errors_above(share, USUAL, len(groups))
    if errors < SURE:
        return None
    steps = [group[0].step for group in groups]
    return HealthFinding(
        "warning",
        what.format(share=share),
        cure,
        NAME,
        (min(steps), record.step),
        confidence(errors, RELIABILITY),
    )


SYMPTOM = Detector(NAME, Requirements(prompts=FEWEST_PROMPTS), detect)
