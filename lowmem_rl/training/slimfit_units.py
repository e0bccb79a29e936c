"""Lets those matrices learn that SlimFit names, and measures how far the last step of a period moves each of them."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trainable.slimfit import EPSILON, UNVISITED, first_distances, learning_units
from lowmem_rl.training.learning_layers import Unit
from lowmem_rl.training.scored_layers import ScoredLayers

_UNIT = re.compile(r"\.layers\.([0-9]+\..+?)\.(?:lora_|modules_to_save\.|(?:weight|bias)$)")


def unit_of(name: str) -> str:
    """Returns the layer and the module that a weight belongs to, as `3.mlp.up_proj`."""
    found = _UNIT.search(name)
    assert found, name
    return found[1]


class SlimFitUnits(ScoredLayers):
    """A unit is one matrix with its bias, a norm, or the two factors of an adapter.

    Only a period's last step is measured: then no copy of the weights outlives a step.
    """

    def __init__(
        self, run_dir: RunDir, schedule: LayerSchedule, model: ModelLike, report: Callable[[str], None]
    ) -> None:
        super().__init__(run_dir, schedule, model, report)
        self.distances = first_distances([str(unit) for unit in self.weights], schedule.seed)
        self.layers = learning_units(self.distances, schedule.trainable.freeze_rate)
        self.before: dict[Unit, list[Any]] = {}
        """Of each unit that is measured its weights before the step."""

    def unit_of(self, name: str) -> Unit:
        """Returns the unit that a weight of the layers belongs to."""
        return unit_of(name)

    def before_optimizer_step(self) -> None:
        """Copies what the last step of a period will move; whole weights to host RAM."""
        super().before_optimizer_step()
        self.before = {}
        if self.is_last_step:
            to_host = self.schedule.trainable.method == "full"
            for unit in self.layers:
                if any(weight.grad is not None for weight in self.weights[unit]):
                    weights = [weight.detach() for weight in self.weights[unit]]
                    self.before[unit] = [one.to("cpu" if to_host else one.device, copy=True) for one in weights]

    def _described(self) -> Row:
        return {"layers": list(self.learning_layers), "units": list(self.layers)}

    def _measure(self, row: Row) -> None:
        if not row.get("optimizer_skipped"):
            self.distances |= {str(unit): distance for unit, distance in self._moved()}
        self.before = {}

    def _moved(self) -> Iterator[tuple[Unit, float]]:
        """Yields ||dW||_1 / (||W||_1 + epsilon n) of each unit that has moved: a warm-up's first step moves none."""
        from torch.linalg import vector_norm

        for unit, before in self.before.items():
            pairs = [(then, now.detach().to(then.device)) for then, now in zip(before, self.weights[unit], strict=True)]
            moved = sum(float(vector_norm(now - then, 1)) for then, now in pairs)
            size = sum(float(vector_norm(then, 1)) + EPSILON * then.numel() for then in before)
            if moved:
                yield unit, moved / size

    def _end_period(self) -> Row:
        learned = {str(unit): self.distances[str(unit)] for unit in self.layers}
        measured = {unit: distance for unit, distance in learned.items() if distance < UNVISITED}
        self.layers = learning_units(self.distances, self.schedule.trainable.freeze_rate)
        return {"scores": {"distance": measured}}

    def _state(self) -> dict[str, Any]:
        return {"distances": self.distances}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.distances = state["distances"]
