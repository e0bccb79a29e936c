"""Ours with one saving off at a time, with the gain that the counts of work predict."""

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
    "copies_made_again": ("rollout", "sampled", None),
    "generate": ("rollout", "sampled", None),
}
"""The phase that a saving shortens, and the count that predicts by how much, if one does."""
_CHECKPOINTING = 6 / 4
"""With frozen weights, forward and backward to the activations take 4 operations a weight; recomputing takes 2 more."""


def ablations(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    """Returns the replays of ours and of each ablation, and the gain of each saving, measured and predicted."""
    found = replays(bench, protocol, (OURS, *ABLATIONS), "preset")
    return {"worth": {name: _gain(name, found["skewed"]) for name in WORK}, "replay": found}


def _gain(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how many times as long the step and its phase take without the saving, and the counted work's ratio."""
    clock, phase = found["clock"], WORK[name][0]
    ours, without = found["arms"][OURS.name], found["arms"][name]
    return {
        "step": found["ratios"][name][clock],
        "phase": phase,
        "phase_ratio": without["phases"][phase][clock] / ours["phases"][phase][clock],
        "predicted_phase_ratio": predicted(name, ours, without),
    }


def predicted(name: str, ours: Mapping[str, Any], without: Mapping[str, Any]) -> float | None:
    """Returns the ratio of the phase's work without the saving to that with it; None if no count predicts it."""
    _, part, count = WORK[name]
    if count is None:
        return None
    recomputed = _CHECKPOINTING if name == "checkpointing" else 1.0
    return float(recomputed * without[part][count] / ours[part][count])
