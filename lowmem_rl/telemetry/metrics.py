"""One flat row a step: TRL's log entries under our words, with units in the names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowmem_rl.health.history import is_only_skipped
from lowmem_rl.phases import OTHER, STEP_PHASES, seconds_key
from lowmem_rl.storage.run_dir import Row

MEASURED = (
    "step_s",
    *(seconds_key(phase) for phase in (*STEP_PHASES, OTHER)),
    "completion_tokens_per_s",
    "peak_bytes",
    "late_verdicts",
)
"""What the machine decides and not the seed: two runs of one seed differ in these alone."""
NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "completion_tokens",
    "completions/max_length": "longest_completion_tokens",
    "completions/clipped_ratio": "truncated_share",
    "clip_ratio/region_mean": "clipped_share",
    "num_tokens": "num_tokens",
    "dead_rows": "dead_rows",
    "rollout_gap": "rollout_gap_nats",
    "sampler_fell_back": "sampler_fell_back",
    "kept_states": "kept_states",
    "kept_states_error": "kept_states_error",
    "kept_states_found": "kept_states_found",
    "shortcuts_given_up": "shortcuts_given_up",
    "optimizer_skipped": "optimizer_skipped",
    "loss_scale": "loss_scale",
}
"""TRL's name -> ours. `kept_states_found`: on a GPU, the share of forward passes that began with their states. The last
two are in the rows of a run that scales its loss (float16): 1 in a step whose gradient overflowed, and what the next
step's loss is multiplied by."""


@dataclass(frozen=True, slots=True)
class RolloutFigures:
    """What was sampled for a step; `tokens` is 0 in a later step of the same rollout."""

    accuracy: float
    informative_share: float
    tokens: int


def metric_row(logs: Mapping[str, Any], step: int) -> Row:
    """Returns what TRL logs of a step under our names, null for what is not a finite number; hooks add the rest."""
    row: Row = {"step": step}
    row |= {ours: _finite(logs[theirs]) for theirs, ours in NAMES.items() if theirs in logs}
    return row | {
        f"scores/{name.split('/')[1]}": _finite(value)
        for name, value in logs.items()
        if name.startswith("rewards/") and name.endswith("/mean")
    }


def diverged(row: Row) -> bool:
    """True if the loss or the gradient is no finite number, unless the scaler has skipped the step for an overflow."""
    watched = ("loss",) if is_only_skipped(row) else ("loss", "grad_norm")
    return any(name in row and row[name] is None for name in watched)


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
