"""Checks of runs: each starts processes at a site and returns what it saw, or raises `Failed` with that."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl_bench.prove import runs
from lowmem_rl_bench.prove.outcome import Outcome
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.run_faults import group_faults, learning_faults, reward_rise, trained, update_faults
from lowmem_rl_bench.prove.settings import (
    MAIN,
    QUICK_CUT_OFF_BATCHES,
    QUICK_MAIN,
    RUN,
    SHORT_RUN,
    SHORTAGE,
    SIX_CUT_OFF_BATCHES,
    Settings,
    as_texts,
)
from lowmem_rl_bench.prove.subject import Subject

LEAST_RISE = 0.1
"""Of the mean reward, from the first third of the steps to the last: 0.5 was seen (two x86 cores, CPU, 2026-11-30)."""


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


def out_of_memory(site: Site, subject: Subject) -> Outcome:
    """Makes the card too small within a step. Raises `Failed` unless the step is done with whole groups."""
    batches = QUICK_CUT_OFF_BATCHES if subject.quick else SIX_CUT_OFF_BATCHES
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
