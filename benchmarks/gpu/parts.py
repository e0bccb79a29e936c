"""The parts of the first minutes: what each runs on the card, and its results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.processes import Failed, Site
from benchmarks.gpu.sizes import Settings, Size, as_texts, questions_in
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows

Found = dict[str, Any]
EXAMPLES = 8
"""Held-out items of an export's proof."""
RUN = {
    "grpo.steps": 3,
    "logging.checkpoint_every": 1,
    "optimizer.name": "adamw_8bit",  # as the presets for cards have it
    "rollout.engine": "lowmem",  # two runs that choose by speed may choose differently
    "eval.every": 2,
    "eval.examples": 64,
    "eval.quick_examples": 16,
}
SHORT_RUN = RUN | {
    "grpo.prompts_per_step": 2,
    "grpo.max_completion_tokens": 16,
    "memory.micro_batch": 8,
    "eval.every": 0,
    "eval.examples": 4,
    "eval.quick_examples": 4,
}
SHORTAGE = {
    "grpo.steps": 1,
    "grpo.group_size": 8,
    "memory.checkpointing": "none",
    "rewards": "{random = 1.0}",
    "eval.examples": 4,
    "eval.every": 0,
    "logging.samples_every": 1,
}
SIX_BATCHES = {"grpo.prompts_per_step": 6, "memory.micro_batch": 8, "grpo.max_completion_tokens": 256}
SIX_SMALL_BATCHES = {"grpo.prompts_per_step": 24, "memory.micro_batch": 32, "grpo.max_completion_tokens": 24}
"""Six micro-batches of equal rows: memory is measured in the fourth and limited in the fifth. PyTorch reserves blocks
of 20 MB, which even those of the embedded model's shape have to exceed."""


@dataclass(frozen=True)
class Speed:
    """How much is measured, without rounds of warm-up."""

    rows: tuple[int, ...]
    tokens: tuple[int, int]
    """Decoded tokens a row: the time of the second number minus that of the first counts."""
    prompt_tokens: int
    rounds: int
    step_rounds: int
    step: Mapping[str, int]
    """The shape of the compared step."""


ON_A_CARD = Speed(
    (1, 8, 32, 64), (8, 40), 200, 4, 3, {"prompts": 8, "group_size": 8, "prompt_tokens": 200, "completion_tokens": 256}
)
REHEARSED = Speed(
    (1, 4), (8, 16), 24, 1, 1, {"prompts": 2, "group_size": 4, "prompt_tokens": 24, "completion_tokens": 16}
)


def speed(*, quick: bool) -> Speed:
    """Returns how much is measured for each size."""
    return REHEARSED if quick else ON_A_CARD


def does_it_run(site: Site, *, quick: bool) -> Found:
    """Trains the embedded model in 4 bit, kills and resumes a second such run, compares both, exports the first.

    Raises `Failed` with the results so far if the runs differ, or if the export answers differently.
    """
    whole, killed = RunDir(site.folder / "whole"), RunDir(site.folder / "killed")
    train = ["train", "--preset", "tiny-cpu", *_given(SHORT_RUN if quick else RUN), "--force", "--out"]
    site.lowmem("train", *train, str(whole.path))
    found = _trained(whole)
    with holding(found):
        site.killed("killed", killed.checkpoint(1).exists, "lowmem_rl_cli", *train, str(killed.path))
        site.lowmem("resume", "train", "--resume", "--force", "--out", str(killed.path))
        found["resumed"] = _compared(whole, killed)
        export = ("export", str(whole.path), "--to", "adapter", "--examples", str(EXAMPLES), "--json")
        found["export"] = json.loads(site.lowmem("export", *export))["proof"]
        check_runs(found)
    return found


@contextmanager
def holding(found: Found) -> Iterator[None]:
    """Adds the results so far to a `Failed` that is raised inside."""
    try:
        yield
    except Failed as error:
        error.found = found
        raise


def check_runs(found: Found) -> None:
    """Raises `Failed` if a resumed run differs, or if an export answers differently than its run."""
    resumed, export = found["resumed"], found["export"]
    if not resumed["exact"]:
        off = f"its adapter is {resumed['adapter_distance']:.1e} off"
        raise Failed(f"The resumed run differs: {off}; {'; '.join(resumed['differences'])}")
    if not export["holds"]:
        raise Failed(f"The export does not hold: {'; '.join(export['faults'])}")


def _trained(run: RunDir) -> Found:
    rows = list(read_rows(run.metrics))
    evaluations = read_json(run.evaluations)
    return {
        "rewards": [row["reward"] for row in rows],
        "step_seconds": [row["step_s"] for row in rows],
        "log_prob_gap_nats": [row.get("rollout_gap_nats") for row in rows],
        "pass_at_1": {when: evaluations[when]["pass_at_1"] for when in ("before", "after")},
        "sampling": read_json(run.engine)["sampling"],
        "peak_bytes": max(row["peak_bytes"] for row in rows),
    }


def _compared(whole: RunDir, killed: RunDir) -> Found:
    """Returns the differences of a killed run, and the distance of its adapter over the largest weight."""
    from safetensors.numpy import load_file

    from lowmem_rl_bench.step.ratios import distance
    from lowmem_rl_bench.verify_resume import differences

    found = list(differences(whole, killed))
    adapters = [load_file(run.adapter / "adapter_model.safetensors") for run in (killed, whole)]
    return {"exact": not found, "differences": found[:8], "adapter_distance": distance(*adapters)}


def make_weights(site: Site, size: Size) -> Found:
    """Writes a size's model with random weights."""
    made = site.child(
        "random_model", {"model": size.model, "folder": str(site.folder / size.name)}, f"weights-{size.name}"
    )
    return dict(made)


def memory(site: Site, size: Size, source: str) -> Found:
    """Measures a preset's longest step by phase, with its estimate; `source` names the record in the row."""
    settings = _given(size.settings(site.folder) | questions_in(site.folder))
    printed = site.lowmem(f"memory-{size.name}", "profile", "--preset", size.preset, *settings, "--measure", "--json")
    measured = json.loads(printed)
    phases = {name: _with_error(found) for name, found in measured["phases"].items()}
    return {
        "preset": size.preset,
        "planned": size.plan.to_json()["plan"],
        "prompt_tokens": measured["prompt_tokens"],
        "completion_tokens": measured["completion_tokens"],
        "phases": phases,
        "row": _row(size, measured, source),
    }


def _with_error(found: Mapping[str, Mapping[str, int]]) -> Found:
    """Returns predicted and measured bytes by kind, and the error: predicted over measured, minus one."""
    return {
        kind.removesuffix("_bytes"): {
            "predicted": found["predicted"][kind],
            "measured": measured,
            "error": found["predicted"][kind] / measured - 1 if measured else None,
        }
        for kind, measured in found["measured"].items()
    }


def _row(size: Size, measured: Mapping[str, Any], source: str) -> Found:
    """Returns the measurement in the form of `profile --score`."""
    config, peaks = size.plan.config, [found["measured"] for found in measured["phases"].values()]
    return {
        "id": f"{source.removesuffix('.json')}-{size.name}",
        "source": source,
        "gpu": size.machine.name,
        "stack": "unsloth",
        "loss": "grpo",
        "method": "qlora",
        "model": size.model,
        "lora_rank": config.adapter.rank,
        "lora_targets": list(config.adapter.targets),
        "micro_batch": config.micro_batch,
        "prompt_tokens": measured["prompt_tokens"],
        "completion_tokens": measured["completion_tokens"],
        "group_size": config.grpo.group_size,
        "rollout_rows": config.rollout_rows,
        "checkpointing": config.checkpointing,
        "optimizer": config.optimizer.name,
        "rollout_engine": "lowmem",
        "rollout_weights": config.rollout_weights,
        "eval_rows": config.eval.batch,
        "expandable_segments": True,
        "peak_allocated_bytes": max(peak["allocated_bytes"] for peak in peaks),
        "peak_reserved_bytes": max(peak["reserved_bytes"] for peak in peaks),
        "process_bytes": max(peak["process_bytes"] for peak in peaks),
    }


def decode(site: Site, size: Size, speed: Speed) -> Found:
    """Measures milliseconds a decoded token on each kind of weights."""
    order = {"rows": speed.rows, "tokens": speed.tokens, "rounds": speed.rounds, "prompt_tokens": speed.prompt_tokens}
    return dict(site.child("decode_speed", order | _asked(size, size.settings(site.folder)), f"decode-{size.name}"))


def step(site: Site, size: Size, speed: Speed) -> Found:
    """Measures a whole step against Unsloth's on the same tokens."""
    order = {"shape": dict(speed.step), "rounds": speed.step_rounds}
    return dict(site.child("step_speed", order | _asked(size, size.settings(site.folder)), f"step-{size.name}"))


def _asked(size: Size, settings: Settings) -> Found:
    return {"preset": size.preset, "settings": as_texts(settings)}


def _given(settings: Settings) -> list[str]:
    return [argument for text in as_texts(settings) for argument in ("--set", text)]


def out_of_memory(site: Site, size: Size, *, quick: bool) -> Found:
    """Limits the memory during a step; the run must continue with the groups it began with."""
    run = RunDir(site.folder / "short")
    settings = size.settings(site.folder) | SHORTAGE | (SIX_SMALL_BATCHES if quick else SIX_BATCHES)
    order = _asked(size, settings) | {"out": str(run.path)}
    ended = site.child("shortage", order, "out-of-memory")
    if ended["code"]:
        raise Failed(f"The run ended with {ended['code']}:\n{site.last_lines('out-of-memory')}")
    return ended | _survived(run, f"{ended['limit_bytes']} bytes, of {ended['held_bytes']} to {ended['peak_bytes']}")


def _survived(run: RunDir, cap: str) -> Found:
    recoveries, steps = list(read_rows(run.recoveries)), list(read_rows(run.metrics))
    if not recoveries:
        raise Failed(f"Memory did not run out, though it was capped at {cap}.")
    if len(steps) != 1:
        raise Failed(f"{len(steps)} steps were taken instead of one.")
    names = ("step", "phase", "rows", "next_rows", "why")
    return {
        "recoveries": [{name: row[name] for name in names} for row in recoveries],
        "groups": whole_groups(run),
        "loss": steps[0]["loss"],
    }


def whole_groups(run: RunDir) -> list[int]:
    """Returns how many completions each group of a run of one step has; the run keeps all its samples.

    Raises `Failed` if a group or a completion is missing.
    """
    grpo = read_json(run.config)["config"]["grpo"]
    groups = list(Counter(row["example_id"] for row in read_rows(run.samples)).values())
    if groups != [grpo["group_size"]] * grpo["prompts_per_step"]:
        wanted = f"{grpo['prompts_per_step']} groups of {grpo['group_size']}"
        raise Failed(f"Completions by group: {groups}; {wanted} were to be sampled.")
    return groups


def card(site: Site, *, quick: bool) -> Found:
    """Reads the card's properties and its present speed."""
    work = {"side": 64, "products": 1} if quick else {"side": 8192, "products": 200}
    return dict(site.child("card", work))


def ready(folder: Path, size: Size) -> bool:
    """Returns whether a size's weights exist."""
    return (folder / size.name / "model.safetensors.index.json").exists()
