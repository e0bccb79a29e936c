"""The two checks that measure a preset's step: its memory by phase, and its time against Unsloth's defaults."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.memory.first_step import predicted_footprints
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove.outcome import Outcome
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.record import CardFacts, MemoryPart, PresetPart
from lowmem_rl_bench.prove.replay import met_shape, replayed_estimate
from lowmem_rl_bench.prove.settings import MADE_UP, as_texts, write_questions
from lowmem_rl_bench.prove.subject import Subject

MOST_GRADIENT_ERROR = 0.1
"""Of the first gradients against Unsloth's: 0.0013 was seen in float16 on a simulated card (2026-11-30), and bfloat16
has steps eight times as large."""
SHAPE = {"prompts": 8, "group_size": 8, "prompt_tokens": 200, "completion_tokens": 256}
"""At most; the preset's own step if that is smaller."""
QUICK_SHAPE = {"prompts": 2, "group_size": 4, "prompt_tokens": 24, "completion_tokens": 16}


def memory(site: Site, subject: Subject) -> Outcome:
    """Takes the preset's longest step. Raises `Failed` if its peak is above the estimate's upper value."""
    settings = subject.settings(site) | {"task.path": write_questions(site.folder)}
    order = {"preset": subject.preset, "settings": as_texts(settings)}
    found = site.child("lowmem_rl_bench.prove.memory_step", order)
    measured = MemoryPart.model_validate(found)
    # What is stated is what a reader computes again.
    facts = PresetPart.model_validate(subject.facts() | {"memory": found})
    estimated = _estimate(subject, facts, measured)
    part = {"memory": found}
    errors = {
        phase: sizes.predicted.process_bytes / sizes.measured.process_bytes - 1
        for phase, sizes in measured.phases.items()
    }
    peak, predicted, upper = (
        size / GIB for size in (measured.measured_bytes, measured.predicted_bytes, estimated.upper_bytes)
    )
    words = f"peak {peak:.2f} GiB, predicted {predicted:.2f}, at most {upper:.2f}"
    figures = {"upper_bytes": estimated.upper_bytes, "errors": errors}
    if measured.measured_bytes > estimated.upper_bytes:
        raise Failed(words, figures | part)
    return Outcome(f"{words} ({subject.model_words})", figures, part)


def _estimate(subject: Subject, facts: PresetPart, measured: MemoryPart) -> MemoryEstimate:
    """Returns the estimate of the step. Raises `Failed` if a reader of the record would compute another one."""
    card = CardFacts.model_validate(subject.card_facts(cuda=None))
    estimated = replayed_estimate(subject.config, met_shape(facts, measured), measured, card, subject.card.name)
    predicted = predicted_footprints(estimated)
    wrong = [phase for phase, sizes in measured.phases.items() if predicted.get(phase) != sizes.predicted]
    if wrong:
        raise Failed(f"The prediction for {', '.join(wrong)} cannot be computed again from the record.")
    return estimated


def step(site: Site, subject: Subject) -> Outcome:
    """Measures a step against Unsloth's defaults. Raises `Failed` if the first gradients are too far from theirs."""
    shape, rounds = (QUICK_SHAPE, 1) if subject.quick else (_shape_of(subject.config), 3)
    settings = subject.settings(site) | MADE_UP  # questions of all lengths would make its prompts longer
    order = {"preset": subject.preset, "settings": as_texts(settings), "shape": shape, "rounds": rounds}
    found = site.child("lowmem_rl_bench.prove.step_speed", order)
    error, ratio, part = found["gradient_error"], found["ratio"], {"step": _step_part(found)}
    ours, theirs = found["seconds"]["ours"]["step"], found["seconds"]["unsloth"]["step"]
    words = f"{ours:.2f} s a step, Unsloth's defaults {theirs:.2f} s, {ratio['median']:.2f} times as long"
    figures = {"seconds": found["seconds"], "clocks": found["clocks"]}
    if error is not None and not error <= MOST_GRADIENT_ERROR:  # NaN too
        raise Failed(f"{words}, but the first gradients differ by {error:.2g}", figures)
    return Outcome(f"{words} ({subject.model_words})", figures, part)


def _shape_of(config: RunConfig) -> dict[str, int]:
    """Returns the preset's own step, or its first rows if it is a long one."""
    grpo = config.grpo
    rows = SHAPE["prompts"] * SHAPE["group_size"]
    group = min(grpo.group_size, rows)
    return {
        "prompts": max(min(grpo.prompts_per_step, rows // group), 1),
        "group_size": group,
        "prompt_tokens": min(grpo.max_prompt_tokens, SHAPE["prompt_tokens"]),
        "completion_tokens": min(grpo.max_completion_tokens, SHAPE["completion_tokens"]),
    }


def _step_part(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompts", "group_size", "useful_tokens", "longest_prompt_tokens", "completion_tokens")
    arms = {
        name: {"rounds": taken, "peak_bytes": found["peak_bytes"][name], "engine": found["engines"][name]["engine"]}
        for name, taken in found["rounds"].items()
    }
    error = found["gradient_error"]
    return {
        **{name: found["workload"][name] for name in names},
        **arms,
        "ratio": found["ratio"],
        "gradient_error": error if error is not None and isfinite(error) else None,
    }
