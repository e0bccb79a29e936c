"""Ours with one saving off at a time, beside what the counts say that the saving is worth."""

from collections.abc import Mapping
from typing import Any

from lowmem_rl_bench.step.arms import ABLATIONS, OURS
from lowmem_rl_bench.step.replays import Bench, Protocol, replays

WORK: Mapping[str, tuple[str, str, str | None]] = {
    "dead_rows_kept": ("update", "updated", "tokens"),
    "trl_layout": ("update", "updated", "tokens"),
    "prompts_per_row_update": ("update", "updated", "tokens"),
    "checkpointing": ("update", "updated", "tokens"),
    "prompts_per_row_rollout": ("rollout", "sampled", None),
    "finished_stay": ("rollout", "sampled", "row_steps"),
    "quantized": ("rollout", "sampled", None),
    "generate": ("rollout", "sampled", None),
}
"""The phase that a saving shortens, and the count that should say by how much, where one does."""
CHECKPOINTING = 6 / 4
"""Forward, and backward to the activations alone, for frozen weights: 4 operations a weight, and 2 more to redo."""


def ablations(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """Returns the replays of ours and of each ablation, and what each saving is worth, measured and predicted."""
    found = replays(bench, protocol, (OURS, *ABLATIONS), "preset")
    worth = {name: _worth(name, found["skewed"]) for name in WORK}
    return {"worth": worth, "replay": found}


def _worth(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how many times as long the step takes without the saving, and its phase, beside the counted work."""
    clock, phase = found["clock"], WORK[name][0]
    ours, without = found["arms"][OURS.name], found["arms"][name]
    return {
        "step": found["ratios"][name][clock],
        "phase": phase,
        "phase_ratio": without["phases"][phase][clock] / ours["phases"][phase][clock],
        "predicted_phase_ratio": predicted(name, ours, without),
    }


def predicted(name: str, ours: Mapping[str, Any], without: Mapping[str, Any]) -> float | None:
    """Returns the ratio of the phase's work without the saving to that with it; None where no count tells."""
    _, part, count = WORK[name]
    if count is None:
        return None
    again = CHECKPOINTING if name == "checkpointing" else 1.0
    return float(again * without[part][count] / ours[part][count])
