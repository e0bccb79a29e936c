"""A record of `prove` as a card would write it: a preset as planned for the card, its step measured as predicted."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.memory.first_step import predicted_footprints
from lowmem_rl.models.hardware import find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import plan
from lowmem_rl.stats import bootstrap_median
from lowmem_rl_bench.prove import replay
from lowmem_rl_bench.prove.measured_preset import Weights, compose, planned_facts, planned_settings, shape_of
from lowmem_rl_bench.prove.record import CardFacts, MemoryPart, digest_of, sealed

OURS, UNSLOTH = [10.0, 11.0, 9.5], [20.0, 21.5, 20.5]


def make_record(preset: str = "qwen1.5b-t4", weights: Weights = "cached", card: str = "t4") -> dict[str, Any]:
    """Returns a record of a preset on a card."""
    known = find_card(card)
    facts = {
        "key": known.key,
        "compute_capability": list(known.compute_capability),
        "offered_bytes": known.offered_bytes,
        "cuda": "13.0",
    }
    machine = {
        "gpu": f"NVIDIA {known.name.removeprefix('NVIDIA ')}",
        "driver": "580.95.05",
        "gpu_bytes": known.offered_bytes,
        "device": "cuda",
        "dtype": "float16",
        "cores": 8,
        "ram_bytes": 2**35,
        "python": "3.12.3",
        "platform": "Linux",
        "versions": {"lowmem-rl": "0.2.0", "torch": "2.14.1"},
        "commit": "ab" * 20,
    }
    record = {
        "version": 1,
        "tool": "lowmem-rl prove",
        "date": "2026-11-30",
        "command": "lowmem-rl prove",
        "quick": False,
        "machine": machine,
        "card": facts,
        "measured": _measured(preset, weights, facts),
        "checks": [
            {
                "name": "memory",
                "status": "ok",
                "seconds": 61.5,
                "result": "peak 7.1 GiB",
                "figures": {"phases": ["load"]},
            }
        ],
        "estimator": replay.estimator_digest(),
    }
    return sealed(record)


def changed(record: dict[str, Any], place: str, value: Any, *, reseal: bool = True) -> dict[str, Any]:
    """Returns the record with another value at a dotted place, as somebody would write it who knows about digests."""
    copy = json.loads(json.dumps(record))
    *path, last = place.split(".")
    inner = copy
    for name in path:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[int(last) if isinstance(inner, list) else last] = value
    if place.startswith("measured.config."):
        copy["measured"]["config_sha256"] = digest_of(copy["measured"]["config"])
    return sealed(copy) if reseal else copy


def write(record: Any, path: Path) -> Path:
    """Writes plain JSON and returns the file."""
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def _measured(preset: str, weights: Weights, card: dict[str, Any]) -> dict[str, Any]:
    known, shape = find_card(card["key"]), shape_of(preset, weights)
    chosen = planned_facts(plan(compose(preset, weights).config, shape, known).config)
    config = compose(preset, weights, planned_settings(chosen)).config
    memory = {
        "step": replay.heaviest_step(config, shape.num_layers)[2],
        "prompt_tokens": config.grpo.max_prompt_tokens,
        "completion_tokens": config.grpo.max_completion_tokens,
        "kept_share": 0.0,
        "expandable_segments": True,
        "file_bytes": load_shape("tiny").file_bytes if weights == "embedded" else None,
        "quantised": "no",
    }
    estimate = _estimate(config, shape, memory, card)
    memory["phases"] = {
        phase: {"predicted": found.model_dump(), "measured": found.model_dump()}
        for phase, found in predicted_footprints(estimate).items()
    }
    stored = config.model_dump(mode="json")
    return {
        "preset": preset,
        "model": config.model.name,
        "weights": weights,
        "planned": chosen,
        "config": stored,
        "config_sha256": digest_of(stored),
        "memory": memory,
        "step": _step(),
    }


def _estimate(config: Any, shape: Any, memory: dict[str, Any], card: dict[str, Any]) -> MemoryEstimate:
    phase = {"predicted": {"process_bytes": 1}, "measured": {"process_bytes": 1}}
    met = MemoryPart.model_validate_json(json.dumps(memory | {"phases": {"load": phase}}))
    return replay.replayed_estimate(config, shape, met, CardFacts.model_validate_json(json.dumps(card)), "a card")


def _step() -> dict[str, Any]:
    ratios = [theirs / mine for theirs, mine in zip(UNSLOTH, OURS, strict=True)]
    interval = bootstrap_median(ratios)
    return {
        "prompts": 8,
        "group_size": 8,
        "useful_tokens": 14000,
        "longest_prompt_tokens": 240,
        "completion_tokens": 512,
        "ours": {"rounds": OURS, "peak_bytes": 2**33, "engine": "lowmem"},
        "unsloth": {"rounds": UNSLOTH, "peak_bytes": 2**33, "engine": "generate"},
        "ratio": {"median": median(ratios), "low": interval.low, "high": interval.high, "rounds": len(ratios)},
        "gradient_error": 0.01,
    }
