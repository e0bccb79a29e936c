"""Template mismatch: the chat template and the rewards, or the template and the sampler, do not agree on the format.

Seen as a format score of 0 on completions that do think in tags, because the template had opened the tag
(TRL #6966, open-r1 #560); as turns that continue in another role; as completions that answer early and never stop.
"""

from collections.abc import Callable
from statistics import fmean

from lowmem_rl.health.dead_reward import is_dead, rounds_needed
from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, Sample, score_metric
from lowmem_rl.health.significance import SURE, confidence
from lowmem_rl.stats import errors_above

_NAME = "template_mismatch"
_FEWEST_PROMPTS = 4
_USUAL = 0.25
"""Share of completions that may look so without anything being wrong."""
_ENDED_TAGS = ("</think>", "</answer>")
_ROLES = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "\nHuman:", "\nUser:", "\nuser\n", "\nassistant\n", "[INST]")
_ANSWERED = ("\\boxed{", "</answer>", "####")
_RELIABILITY = 0.85


def detect(history: RunHistory) -> HealthFinding | None:
    rounds = rounds_needed(history)
    for name in history.format_rewards:
        if is_dead(history.last(score_metric(name), rounds), rounds):
            what = f"{name} is 0 for every completion, yet {{share:.0%}} of those kept close a think or answer tag."
            fix = "Let the reward see what the template opens, or choose another task.prompt: lowmem-rl rewards check"
            if unrewarded := _if_common(history, _closes_a_tag, what, fix):
                return unrewarded
            break
    return _if_common(
        history,
        lambda sample: any(role in sample.completion for role in _ROLES),
        "{share:.0%} of the completions kept continue as another speaker.",
        "The model's end of turn is not among its stop tokens: take the model's own chat template and tokenizer.",
    ) or _if_common(
        history,
        _runs_on,
        "{share:.0%} of the completions kept have answered, and run on to the limit.",
        "The model does not end its turn: take its own chat template, or its instruct version.",
    )


def _closes_a_tag(sample: Sample) -> bool:
    """A completion that was cut off may not have come to the format."""
    return not sample.truncated and any(tag in sample.completion for tag in _ENDED_TAGS)


def _runs_on(sample: Sample) -> bool:
    """A quarter of the text or more comes after the first answer: working may come before it."""
    before = sample.completion[: len(sample.completion) * 3 // 4]
    return sample.truncated and any(mark in before for mark in _ANSWERED)


def _if_common(history: RunHistory, has_it: Callable[[Sample], bool], what: str, fix: str) -> HealthFinding | None:
    groups = history.recent_groups(_FEWEST_PROMPTS)
    share = fmean(fmean(map(has_it, group)) for group in groups)
    errors = errors_above(share, _USUAL, len(groups))
    if errors < SURE:
        return None
    steps = (min(group[0].step for group in groups), history.step)
    return HealthFinding("warning", what.format(share=share), fix, _NAME, steps, confidence(errors, _RELIABILITY))


DETECTOR = Detector(_NAME, Requirements(prompts=_FEWEST_PROMPTS), detect)
