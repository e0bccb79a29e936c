"""A learning rate for each decoder layer: a group of the optimizer each, with a factor of the schedule of its own."""

from collections.abc import Callable, Iterable
from typing import Any

from lowmem_rl.engine.peft_model import layer_of
from lowmem_rl.trainable.freezeout import rate
from lowmem_rl.trainable.schedule import LayerSchedule

LAYER = "layer"
"""Key of a group's layer; None for what is in no layer."""


def split_by_layer(optimizer: Any, named_weights: Iterable[tuple[str, Any]]) -> None:
    """Splits the groups of an optimizer that has no state yet, in a fixed order.

    What is in no layer comes first, then the last layer: the first group's rate is the one that is logged, and these
    learn longest.
    """
    layers = {weight: layer_of(name) for name, weight in named_weights}
    groups = [
        {**group, "params": weights, LAYER: layer}
        for layer in sorted(set(layers.values()), key=lambda layer: (layer is not None, -(layer or 0)))
        for group in optimizer.param_groups
        if (weights := [weight for weight in group["params"] if layers[weight] == layer])
    ]
    optimizer.param_groups[:] = groups


def follow_freezeout(scheduler: Any, schedule: LayerSchedule) -> None:
    """Multiplies the rates that a scheduler (LambdaLR) gives each layer's group by FreezeOut's of that layer."""
    stops = dict(zip(schedule.layers, schedule.stops, strict=True))
    pairs = zip(scheduler.optimizer.param_groups, scheduler.lr_lambdas, strict=True)
    scheduler.lr_lambdas = [_slowed(factor, stops.get(group[LAYER])) for group, factor in pairs]


def _slowed(factor: Callable[[int], float], stop: int | None) -> Callable[[int], float]:
    return factor if stop is None else lambda done: factor(done) * rate(done, stop)
