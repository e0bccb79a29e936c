"""Ours with one saving off at a time, with the gain that the counts of work predict."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.step.arms import ABLATIONS, OURS, Arm
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
    "compared_separately": ("rollout", "sampled", None),
    "generate": ("rollout", "sampled", None),
    "states_not_kept": ("update", "updated", None),
    "every_layer": ("update", "updated", None),
}
"""The phase that a saving shortens, and the count that predicts by how much, if one does."""
_CHECKPOINTING = 6 / 4
"""With frozen weights, forward and backward to the activations take 4 operations a weight; recomputing takes 2 more."""


def ablations(
    bench: Bench, protocol: Protocol, save: Callable[[Mapping[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Returns the replays of ours and of each ablation, and the gain of each saving, measured and predicted.

    `save` gets what there is of it after each set of lengths. Raises `ConfigError` if a saving that is named is none,
    or if the run is without it already.
    """
    arms = [arm for arm in ABLATIONS if arm.off or arm.configure(bench.config) != bench.config]
    if protocol.savings:
        arms = [arm for arm in arms if arm.name in protocol.savings]
        if unknown := set(protocol.savings) - {arm.name for arm in arms}:
            what = f"{', '.join(sorted(unknown))}: no saving of this run has that name."
            raise ConfigError(
                what, hint=f"Name some of {', '.join(WORK)}; some need a --set, as trainable.layers=last:1."
            )
    return _worth(arms, replays(bench, protocol, (OURS, *arms), "preset", save=lambda found: save(_worth(arms, found))))


def _worth(arms: Sequence[Arm], found: Mapping[str, Any]) -> dict[str, Any]:
    return {"worth": {arm.name: _gain(arm.name, found["skewed"]) for arm in arms}, "replay": dict(found)}


def _gain(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how many times as long the step and its phase take without the saving, and the counted work's ratio."""
    clock, phase = found["clock"], WORK[name][0]
    ours, without = found["arms"][OURS.name], found["arms"][name]
    ratio = found["phase_ratios"][name][phase]
    return {
        "step": found["ratios"][name][clock],
        "phase": phase,
        "phase_ratio": ratio["median"],
        "phase_interval": [ratio["low"], ratio["high"]],
        "predicted_phase_ratio": predicted(name, ours, without),
    }


def predicted(name: str, ours: Mapping[str, Any], without: Mapping[str, Any]) -> float | None:
    """Returns the ratio of the phase's work without the saving to that with it; None if no count predicts it."""
    _, part, count = WORK[name]
    if count is None:
        return None
    recomputed = _CHECKPOINTING if name == "checkpointing" else 1.0
    return float(recomputed * without[part][count] / ours[part][count])
