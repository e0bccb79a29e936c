"""Trainer state between two optimizer steps: what a checkpoint holds, and what it asks of a trainer.

What only an optimizer step changes (weights, optimizer, schedule, gradient scaler) is read when a checkpoint is
written. The rest moves within a step and is captured between two, which is cheap: so a run can be saved exactly while
the next step is being sampled, and the resumed run takes that step again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROLLOUT = "rollout.pt"
RANDOM, STATE = "rng_state.pth", "trainer_state.json"
"""transformers' names, which its own readers look for."""
OPTIMIZER, SCALER = "optimizer.pt", "scaler.pt"
"""transformers' names."""


@dataclass(frozen=True, slots=True)
class TrainerSnapshot:
    """What is captured after `step`."""

    step: int
    random: dict[str, Any]
    state: Any
    """transformers' TrainerState."""
    rollout: dict[str, Any]
    """What is still to be learned from, how it is cut, and what Unsloth has noted on the model."""
    counts: dict[str, Any]
    """The hooks' own state, as plain JSON data."""


class TrainerLike(Protocol):
    """What hooks may ask of the trainer between two optimizer steps."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""

    def take_snapshot(self) -> TrainerSnapshot:
        """Captures the present state."""

    def save_snapshot(self, snapshot: TrainerSnapshot, folder: Path) -> None:
        """Writes a snapshot and the present weights into an empty folder, which is an adapter's folder, too."""

    def restore_weights(self, folder: Path | None) -> None:
        """Loads weights and optimizer of a checkpoint (None: the base model's) and drops the present rollout."""

    def scale_learning_rate(self, factor: float) -> float:
        """Multiplies the learning rate for the rest of the schedule; returns the new peak."""

    def drop_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Lets the optimizer forget what it holds for these weights."""

    def park_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Moves what the optimizer holds for these weights to host RAM."""

    def fetch_optimizer_state(self, weights: Sequence[Any]) -> None:
        """Moves what the optimizer holds for these weights to where each weight is."""

    def log_to_trackers(self, values: Mapping[str, float]) -> None:
        """Logs values that are in no row of metrics, under the present step."""
