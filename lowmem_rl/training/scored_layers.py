"""Sets of weights that a run's own measurements choose: what `autofreeze` and `slimfit` share.

Measurements and set change between `before_optimizer_step` and the end of the step's boundary, where no checkpoint can
be written. So they are read when one is written, as weights and optimizer states are: sums of gradients are too large
to be copied after each step. A roll-back takes those of its checkpoint back, and the run continues from them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.storage.run_dir import Row, RunDir, append_row, read_rows
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.learning_layers import LearningLayers, Unit


class ScoredLayers(LearningLayers, ABC):
    """Starts at the beginning of a run; `restore` takes it to a checkpoint."""

    def __init__(
        self, run_dir: RunDir, schedule: LayerSchedule, model: ModelLike, report: Callable[[str], None]
    ) -> None:
        super().__init__(run_dir, schedule, model, steps=0)
        self.report = report
        self.steps = 0
        """Steps of the present period so far."""
        self.decision: Row = {}
        """What the last period has led to, until the next step's row holds it."""
        *_, self.recorded = ({}, *read_rows(run_dir.trainable))
        """The last row of trainable.jsonl."""

    @property
    def is_last_step(self) -> bool:
        """True in the last step of a period."""
        return self.steps + 1 >= self.schedule.trainable.every

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Measures the step; records what learns if it is something else than before, and each decision."""
        self.steps += 1
        self._measure(row)
        now = self._described()
        if self.decision or any(self.recorded.get(key) != value for key, value in now.items()):
            self.recorded = {"step": row["step"], **now, **self.decision}
            append_row(self.run_dir.trainable, self.recorded)
            if "skipped" in self.decision:
                self.report(f"trainable.schedule: the layers stay as they are: {self.decision['skipped']}")
        self.decision = {}

    def save(self, folder: Path) -> None:
        """Writes all that is measured and chosen."""
        import torch

        state = {"steps": self.steps, "decision": self.decision, "learning": list(self.layers), **self._state()}
        torch.save(state, folder / self._file)

    def restore(self, folder: Path) -> None:
        """Continues from what `save` has written."""
        import torch

        state = torch.load(folder / self._file, map_location="cpu", weights_only=True)
        self.steps, self.decision, self.layers = state["steps"], state["decision"], tuple(state["learning"])
        self.whole.learn(self.learning_layers)
        self._load_state(state)

    def _next(self, step: int) -> tuple[Unit, ...]:
        """Ends a period after so many steps, or a little later: a roll-back may have left it out of step."""
        if self.steps >= self.schedule.trainable.every and (step - 1) % self.schedule.rollout_steps == 0:
            self.decision, self.steps = self._end_period(), 0
        return self.layers

    @property
    def _file(self) -> str:
        """The name of its file in a checkpoint."""
        return f"{self.schedule.trainable.schedule}.pt"

    @abstractmethod
    def _described(self) -> Row:
        """Returns what learns now, as a row of trainable.jsonl holds it."""

    @abstractmethod
    def _measure(self, row: Row) -> None:
        """Measures a step that is done."""

    @abstractmethod
    def _end_period(self) -> Row:
        """Chooses what learns from now on; returns the scores for the next row, nothing if nothing was compared."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds of it, in types that `torch.load` reads without running code."""

    @abstractmethod
    def _load_state(self, state: dict[str, Any]) -> None:
        """Takes back such a state."""
