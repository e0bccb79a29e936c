"""Which of the chosen decoder layers learn at a step: a pure function, so that a resumed run needs no state for it.

A period is `every` steps; the set changes between two periods. What `autofreeze` and `slimfit` choose depends on
measurements (`training.scored_layers`): here they have all layers.
"""

from dataclasses import dataclass
from random import Random

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.trainable.freezeout import stops


@dataclass(frozen=True, slots=True)
class LayerSchedule:
    """The schedule of a run: `layers` (ascending, not empty) take part in it."""

    trainable: TrainableConfig
    layers: tuple[int, ...]
    seed: int
    rollout_steps: int = 1
    """Steps that one rollout feeds; the set changes only between two rollouts."""
    stops: tuple[int, ...] = ()
    """With `freezeout`: after how many steps each of the layers stops."""

    @classmethod
    def of(cls, config: RunConfig, depth: int) -> "LayerSchedule":
        """Returns a run's schedule for a model of `depth` layers.

        Raises `ConfigError` for layers that the model lacks, and if fewer are chosen than are to learn at once.
        """
        trainable = config.trainable
        layers = layers_of(trainable.layers, depth)
        if trainable.schedule != "fixed" and trainable.active > len(layers):
            what = f"trainable.active = {trainable.active}, but trainable.layers = {trainable.layers!r}"
            raise ConfigError(f"{what} chooses {len(layers)} of them.", hint=f"Set it to at most {len(layers)}.")
        rollout_steps = config.grpo.steps_per_rollout * config.grpo.passes_per_rollout
        stop = stops(len(layers), config.grpo.steps, rollout_steps) if trainable.schedule == "freezeout" else ()
        return cls(trainable, layers, config.seed, rollout_steps, stop)

    def at(self, step: int) -> tuple[int, ...]:
        """Returns the layers, ascending, that learn in `step` (from 1)."""
        period = (step - 1) // self.trainable.every
        match self.trainable.schedule:
            case "gradual_unfreezing":
                return tuple(sorted(self._in_order("descending")[: period + 1]))
            case "gradual_freezing":
                order = self._in_order("ascending")
                return tuple(sorted(order[min(period, len(order) - 1) :]))
            case "freezeout":
                later = zip(self.layers, self.stops, strict=True)
                return tuple(layer for layer, stop in later if stop >= step) or self.layers[-1:]
            case "lisa":
                return tuple(sorted(self._random(period).sample(self.layers, self.trainable.active)))
            case "badam":
                return self._block(period)
            case _:
                return self.layers

    def lowest_at(self, step: int) -> int | None:
        """Returns the lowest layer that learns in `step`: 0 if embeddings or all norms do, None if no layer does."""
        return 0 if self.reaches_bottom else min(self.at(step), default=None)

    def lowest_until(self, step: int) -> int | None:
        """Returns the lowest layer that has learned by the end of `step`: those below it are the base model's."""
        starts = (*range(1, step, self.trainable.every), step)
        return min((layer for start in starts if (layer := self.lowest_at(start)) is not None), default=None)

    def heaviest_step(self, steps: int) -> int:
        """Returns the first of `steps` with the most layers, of those with as many the one that reaches lowest."""
        starts = (1,) if self.trainable.schedule == "freezeout" else range(1, steps + 1, self.trainable.every)
        return max(starts, key=lambda step: (len(layers := self.at(step)), -min(layers, default=0)))

    @property
    def reaches_bottom(self) -> bool:
        """Returns whether something below or in the lowest layer always learns."""
        return bool({"embed_tokens", "norms"} & set(self.trainable.extra))

    def _block(self, period: int) -> tuple[int, ...]:
        """Returns a period's block; each cycle goes through all of them once."""
        size = self.trainable.active
        cycle, number = divmod(period, -(-len(self.layers) // size))
        return tuple(sorted(self._in_order("random", cycle)[number * size : (number + 1) * size]))

    def _in_order(self, automatic: str, cycle: int = 0) -> list[int]:
        order = automatic if self.trainable.order == "auto" else self.trainable.order
        if order == "random":
            return self._random(cycle).sample(self.layers, len(self.layers))
        return sorted(self.layers, reverse=order == "descending")

    def _random(self, number: int) -> Random:
        """Returns a stream of its own: no other random number of the run moves."""
        return Random(f"{self.seed}/trainable/{number}")
