"""The parts of the first minutes: what each runs on the card, and its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.sizes import Size
from lowmem_rl_bench.prove.processes import Site
from lowmem_rl_bench.prove.run_faults import trained
from lowmem_rl_bench.prove.runs import (
    check_export,
    check_resumed,
    exported,
    holding,
    killed_and_resumed,
    survived_shortage,
    whole_run,
)
from lowmem_rl_bench.prove.settings import (
    ON_QUESTIONS,
    RUN,
    SHORT_RUN,
    SHORTAGE,
    SIX_SMALL_BATCHES,
    Settings,
    as_options,
    as_texts,
    write_questions,
)

Found = dict[str, Any]
SIX_BATCHES = {"grpo.prompts_per_step": 6, "memory.micro_batch": 8, "grpo.max_completion_tokens": 256}
"""Six micro-batches of equal rows, as in `SIX_SMALL_BATCHES`."""


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
    settings = SHORT_RUN if quick else RUN
    whole = whole_run(site, settings)
    found = trained(whole)
    with holding(found):
        found["resumed"] = killed_and_resumed(site, settings, whole)
        found["export"] = exported(site, whole)
        check_resumed(found["resumed"])
        check_export(found["export"])
    return found


def make_weights(site: Site, size: Size) -> Found:
    """Writes a size's model with random weights."""
    order = {"model": size.model, "folder": str(site.folder / size.name)}
    return dict(site.child("lowmem_rl_bench.prove.random_model", order, f"weights-{size.name}"))


def memory(site: Site, size: Size, source: str) -> Found:
    """Measures a preset's longest step by phase, with its estimate; `source` names the record in the row."""
    settings = as_options(size.settings(site.folder) | ON_QUESTIONS | {"task.path": write_questions(site.folder)})
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
    order |= _asked(size, size.settings(site.folder))
    return dict(site.child("benchmarks.gpu.decode_speed", order, f"decode-{size.name}"))


def step(site: Site, size: Size, speed: Speed) -> Found:
    """Measures a whole step against Unsloth's on the same tokens."""
    order = {"shape": dict(speed.step), "rounds": speed.step_rounds} | _asked(size, size.settings(site.folder))
    return dict(site.child("lowmem_rl_bench.prove.step_speed", order, f"step-{size.name}"))


def _asked(size: Size, settings: Settings) -> Found:
    return {"preset": size.preset, "settings": as_texts(settings)}


def out_of_memory(site: Site, size: Size, *, quick: bool) -> Found:
    """Limits the memory during a step; the run must continue with the groups it began with."""
    settings = size.settings(site.folder) | SHORTAGE | (SIX_SMALL_BATCHES if quick else SIX_BATCHES)
    return survived_shortage(site, size.preset, settings)


def card(site: Site, *, quick: bool) -> Found:
    """Reads the card's properties and its present speed."""
    work = {"side": 64, "products": 1} if quick else {"side": 8192, "products": 200}
    return dict(site.child("lowmem_rl_bench.prove.card", work))


def ready(folder: Path, size: Size) -> bool:
    """Returns whether a size's weights exist."""
    return (folder / size.name / "model.safetensors.index.json").exists()
