"""What each check does: it starts processes at a site and returns what it saw, or raises `Failed` with that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any, Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.first_step import predicted_footprints
from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove import runs
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.record import MemoryPart, PresetPart
from lowmem_rl_bench.prove.replay import met_shape, replayed_estimate
from lowmem_rl_bench.prove.run_faults import Found, group_faults, learning_faults, reward_rise, trained, update_faults
from lowmem_rl_bench.prove.settings import (
    MAIN,
    QUICK_MAIN,
    RUN,
    SHORT_RUN,
    SHORTAGE,
    SIX_MEDIUM_BATCHES,
    SIX_SMALL_BATCHES,
    Settings,
    as_texts,
)
from lowmem_rl_bench.prove.subject import Subject

LEAST_RISE = 0.1
"""Of the mean reward, from the first third of the steps to the last: 0.5 was seen (two x86 cores, CPU, 2026-11-30)."""
MOST_GRADIENT_ERROR = 0.1
"""Of the first gradients against Unsloth's, in 16 bit: 0.02 was seen on a simulated card."""
SHAPE = {"prompts": 8, "group_size": 8, "prompt_tokens": 200, "completion_tokens": 256}
"""At most; the preset's own step if that is smaller."""
QUICK_SHAPE = {"prompts": 2, "group_size": 4, "prompt_tokens": 24, "completion_tokens": 16}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check saw: a few words, figures, and the parts of the record that it fills."""

    result: str
    found: Found
    parts: Found = field(default_factory=dict)
    """`memory` or `step` of the measured preset."""


def main_job(site: Site, subject: Subject, *, bits: Literal[4, 16], dtype: str) -> Outcome:
    """Trains the embedded model.

    Raises `Failed` unless losses are finite, groups are whole, all adapters have moved and rewards have risen; a quick
    run is too short for the last.
    """
    settings = (QUICK_MAIN if subject.quick else MAIN) | {"model.bits": bits, "model.dtype": dtype}
    run = RunDir(site.folder / f"main-{bits}-{dtype}")
    site.lowmem(run.path.name, *runs.train_words(settings), "--out", str(run.path))
    found, steps = trained(run), settings["grpo.steps"]
    rise = reward_rise(found["rewards"])
    with runs.holding(found):
        rows = list(read_rows(run.metrics))
        faults = [*update_faults(rows), *group_faults(run, steps), *learning_faults(run)]
        if not subject.quick and rise < LEAST_RISE:
            faults.append(f"the mean reward rose by {rise:.2f} in {steps} steps, at least {LEAST_RISE} was expected")
        if faults:
            raise Failed("; ".join(faults))
    sampled = f"{found['sampling']['engine']} samples"
    grown = "too few for rewards to rise" if subject.quick else f"mean reward +{rise:.2f}"
    return Outcome(f"{steps} steps, {grown}; {sampled}", found | {"reward_rise": rise})


def sampler(site: Site, subject: Subject) -> Outcome:
    """Compares our sampler with `generate`, token by token. Raises `Failed` for a difference that is not rounding."""
    order = {
        "preset": "tiny-cpu",
        "settings": as_texts({"memory.checkpointing": "none", "eval.batch": 16}),
        "prompts": 4 if subject.quick else 32,
    }
    found = site.child("lowmem_rl_bench.prove.sampler_tokens", order)
    with runs.holding(found):
        if faults := list(chain.from_iterable(_sampler_faults(name, found[name]) for name in ("quantized", "merged"))):
            raise Failed("; ".join(faults))
    same = ", ".join(f"{name} {found[name]['same']} of {found['items']}" for name in ("quantized", "merged"))
    ties = sum(found[name]["ties"] for name in ("quantized", "merged"))
    return Outcome(f"the same tokens as generate: {same}; {ties} depart at a tie", found)


def _sampler_faults(weights: str, found: Mapping[str, Any]) -> list[str]:
    faults = [f"{weights}: {difference} is not generate's" for difference in found["differences"]]
    if not found["gap_nats"] <= found["most_gap_nats"]:  # NaN too
        faults.append(f"{weights}: log-probs are {found['gap_nats']:.2g} nats off")
    return faults


def memory(site: Site, subject: Subject) -> Outcome:
    """Takes the preset's longest step. Raises `Failed` if its peak is above the estimate's upper value."""
    order = {"preset": subject.preset, "settings": _texts(site, subject)}
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


def _estimate(subject: Subject, facts: PresetPart, measured: MemoryPart) -> Any:
    """Returns the estimate of the step. Raises `Failed` if a reader of the record would compute another one."""
    from lowmem_rl_bench.prove.record import CardFacts

    card = CardFacts.model_validate(card_facts(subject, None))
    estimated = replayed_estimate(subject.config, met_shape(facts, measured), measured, card, subject.card.name)
    predicted = predicted_footprints(estimated)
    wrong = [phase for phase, sizes in measured.phases.items() if predicted.get(phase) != sizes.predicted]
    if wrong:
        raise Failed(f"The prediction for {', '.join(wrong)} cannot be computed again from the record.")
    return estimated


def card_facts(subject: Subject, cuda: str | None) -> dict[str, Any]:
    """Returns the card's part of a record."""
    card = subject.card
    return {
        "key": card.key,
        "compute_capability": card.compute_capability,
        "offered_bytes": card.offered_bytes,
        "cuda": cuda,
    }


def step(site: Site, subject: Subject) -> Outcome:
    """Measures a step against Unsloth's defaults. Raises `Failed` if the first gradients are too far from theirs."""
    shape, rounds = (QUICK_SHAPE, 1) if subject.quick else (_shape_of(subject.config), 3)
    order = {"preset": subject.preset, "settings": _texts(site, subject), "shape": shape, "rounds": rounds}
    found = site.child("lowmem_rl_bench.prove.step_speed", order)
    error, ratio, part = found["gradient_error"], found["ratio"], {"step": _step_part(found)}
    ours, theirs = found["seconds"]["ours"]["step"], found["seconds"]["unsloth"]["step"]
    words = f"{ours:.2f} s a step, Unsloth's defaults {theirs:.2f} s, {ratio['median']:.2f} times as long"
    figures = {"seconds": found["seconds"], "clocks": found["clocks"]}
    if error is not None and not error <= MOST_GRADIENT_ERROR:  # NaN too
        raise Failed(f"{words}, but the first gradients are {error:.2g} apart", figures)
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


def _texts(site: Site, subject: Subject) -> list[str]:
    """Returns the settings of the measured run as KEY=VALUE: those of the preset's record, then places and plan."""
    from lowmem_rl_bench.prove.measured_preset import settings_of

    return as_texts(settings_of(subject.preset, subject.weights) | subject.settings(site))


def out_of_memory(site: Site, subject: Subject) -> Outcome:
    """Makes the card too small within a step. Raises `Failed` unless the step is done with whole groups."""
    batches = SIX_SMALL_BATCHES if subject.quick else SIX_MEDIUM_BATCHES
    settings = SHORTAGE | batches | {"optimizer.name": "adamw_8bit", "rollout.engine": "lowmem"}
    found = runs.survived_shortage(site, "tiny-cpu", settings)
    first = found["recoveries"][0]
    words = f"ran out in {first['phase']} with {first['rows']} rows, continued with {first['next_rows']}"
    return Outcome(f"{words}; {len(found['groups'])} whole groups", found)


def resume(site: Site, subject: Subject) -> Outcome:
    """Kills a run, resumes it and compares it with an undisturbed one. Raises `Failed` if it differs."""
    settings = _run_settings(subject)
    found = runs.killed_and_resumed(site, settings, runs.whole_run(site, settings))
    with runs.holding(found):
        runs.check_resumed(found)
    return Outcome("killed with SIGKILL after a checkpoint, resumed bit for bit", found)


def export(site: Site, subject: Subject) -> Outcome:
    """Exports a trained adapter.

    Raises `Failed` if transformers and peft alone do not answer like the trained model.
    """
    proof = runs.exported(site, runs.whole_run(site, _run_settings(subject)))
    found = {"tokens": proof["tokens"], "faults": proof["faults"]}
    with runs.holding(found):
        runs.check_export(proof)
    tokens = proof["tokens"]
    tied = f", {len(tokens['ties'])} more depart at a tie" if tokens["ties"] else ""
    return Outcome(f"{tokens['same']} of {tokens['items']} answers are the trained model's{tied}", found)


def _run_settings(subject: Subject) -> Settings:
    return SHORT_RUN if subject.quick else RUN
