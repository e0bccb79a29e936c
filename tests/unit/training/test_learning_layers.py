"""What the hook of a schedule asks of the trainer between two steps."""

from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.learning_layers import LearningLayers


class Optimizer:
    """Where the states of each weight are, as after a roll-back: next to weights that rested, in host RAM."""

    step = 1

    def __init__(self, weights: list[Any]) -> None:
        self.places = dict.fromkeys(weights, "host")

    def drop_optimizer_state(self, weights: list[Any]) -> None:
        for weight in weights:
            self.places.pop(weight)

    def park_optimizer_state(self, weights: list[Any]) -> None:
        self.places |= dict.fromkeys(weights, "host")

    def fetch_optimizer_state(self, weights: list[Any]) -> None:
        self.places |= dict.fromkeys(weights, "card")


@pytest.mark.parametrize(("state", "at_rest"), [("reset", []), ("keep", ["host", "host"])])
def test_states_of_what_learns_are_where_it_learns(state: Any, at_rest: list[str], tmp_path: Path) -> None:
    from torch import nn

    model: Any = nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(2))})})
    trainable = TrainableConfig(schedule="gradual_freezing", every=1, state=state)
    layers = LearningLayers(RunDir(tmp_path), LayerSchedule.of(RunConfig(trainable=trainable), 2), model, 0)
    trainer: Any = Optimizer(list(model.parameters()))
    layers.at_boundary(trainer)
    frozen, learning = (list(layer.parameters()) for layer in model["model"]["layers"])
    assert layers.layers == (1,)
    assert [trainer.places[weight] for weight in learning] == ["card", "card"]
    assert [trainer.places[weight] for weight in frozen if weight in trainer.places] == at_rest
