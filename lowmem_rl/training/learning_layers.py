"""Lets those layers learn that `trainable.schedule` names for a step, and records each change in trainable.jsonl.

The optimizer has all layers that will ever learn from its first step, in one order, so that a checkpoint's states fit
whatever the step. A layer that does not learn needs no gradient: the optimizer passes over it, it neither decays nor
ages, and the backward pass ends above it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.engine.parking import WholeLayers
from lowmem_rl.engine.peft_model import ModelLike, layer_of
from lowmem_rl.phases import Phase
from lowmem_rl.storage.run_dir import Row, RunDir, append_row
from lowmem_rl.trainable.schedule import LayerSchedule

Unit = int | str
"""What begins and stops to learn as one: a decoder layer, or a part of one."""


class LearningLayers:
    """Starts after `steps` steps, with a model in which every weight that will ever learn needs a gradient."""

    def __init__(self, run_dir: RunDir, schedule: LayerSchedule, model: ModelLike, steps: int) -> None:
        self.run_dir, self.schedule = run_dir, schedule
        self.weights: dict[Unit, list[Any]] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad and layer_of(name) in schedule.layers:
                self.weights.setdefault(self.unit_of(name), []).append(weight)
        self.layers: tuple[Unit, ...] = schedule.at(steps + 1)
        self.whole = WholeLayers(model, schedule.layers)
        self.whole.learn(self.learning_layers)

    def unit_of(self, name: str) -> Unit:
        """Returns the unit that a weight of the layers belongs to."""
        layer = layer_of(name)
        assert layer is not None
        return layer

    @property
    def resting(self) -> list[Any]:
        """The weights that do not learn now."""
        return [weight for layer, weights in self.weights.items() if layer not in self.layers for weight in weights]

    @property
    def learning_layers(self) -> tuple[int, ...]:
        """The decoder layers, ascending, of which something learns now."""
        return tuple(sorted({int(str(unit).partition(".")[0]) for unit in self.layers}))

    @property
    def learning(self) -> list[Any]:
        """The scheduled weights that learn now."""
        return [weight for unit in self.layers for weight in self.weights[unit]]

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Applies the set before each gradient: PEFT lets all adapters learn again after each `disable_adapter`."""
        if name == "backward":
            self._apply()
        yield

    def before_optimizer_step(self) -> None:
        """Raises `AssertionError` if a layer that is not to learn has a gradient."""
        assert all(weight.grad is None for weight in self.resting), f"others than layers {self.layers} have a gradient"
        self._apply()  # a step without a micro-batch has not

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Records the layers of the step if they are others than in the step before."""
        step = row["step"]
        if step == 1 or self.schedule.at(step - 1) != self.layers:
            append_row(self.run_dir.trainable, {"step": step, "layers": list(self.layers)})

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Takes the layers of the next step, before a checkpoint of this one is captured.

        What rests leaves the card before anything returns.
        """
        self.layers = self._next(trainer.step + 1)
        self._apply()
        if self.schedule.trainable.state == "reset":
            trainer.drop_optimizer_state(self.resting)
        else:
            trainer.park_optimizer_state(self.resting)
        self.whole.learn(self.learning_layers)
        trainer.fetch_optimizer_state(self.learning)  # a roll-back restores states next to weights that rested

    def _next(self, step: int) -> tuple[Unit, ...]:
        """Returns what learns in a step."""
        return self.schedule.at(step)

    def _apply(self) -> None:
        for layer, weights in self.weights.items():
            for weight in weights:
                weight.requires_grad_(layer in self.layers)
                if layer not in self.layers:
                    weight.grad = None
