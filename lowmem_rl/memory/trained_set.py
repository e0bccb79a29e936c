"""Which weights of a shape learn under `[trainable]`, as counts: layers, the backward pass's depth, whole numbers."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from statistics import fmean

from lowmem_rl.config.layer_choice import check_extra
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trainable.selection import worst_case


@dataclass(frozen=True, slots=True)
class TrainedSet:
    """What learns, and how deep the backward pass goes for it, in the worst period of a schedule.

    Of layers that are still to be selected the lowest ones count.
    """

    layers: int
    """Layers with weights that learn, at once or in turn."""
    backward_layers: int
    """Layers from the lowest that learns to the top."""
    whole_params: int
    """Numbers that learn whole, outside of an adapter."""
    share_at_once: float = 1.0
    """Share of the numbers of all these layers that learn at once."""
    share_at_rest: float = 0.0
    """Share of them that rests with a copy of its own at the end: it has learned, or its original is in 4 bit."""


def trained_set(config: RunConfig, shape: ModelShape, step: int | None = None) -> TrainedSet:
    """Returns the counts of a run, or of one step of it before which nothing has learned.

    Raises `ConfigError` for layers, modules or a head that the model lacks.
    """
    depth = shape.num_layers
    config = worst_case(config, depth)
    trainable = config.trainable
    check_extra(trainable.extra, is_tied=shape.tied_embeddings)
    _check_modules(trainable, shape)
    return _counts(LayerSchedule.of(config, depth), config.grpo.steps, config.model.bits == 4, shape, step)


@lru_cache(maxsize=64)
def _counts(plan: LayerSchedule, steps: int, in_4_bit: bool, shape: ModelShape, step: int | None) -> TrainedSet:
    """It is cached: the planner asks for each of the plans that it compares."""
    trainable, depth = plan.trainable, shape.num_layers
    last = steps if trainable.schedule == "gradual_unfreezing" else 1  # it only grows
    at_once = plan.at(step or last)
    is_drawn = trainable.schedule in ("lisa", "badam", "slimfit")
    reached = plan.layers if is_drawn and step is None else at_once
    lowest = 0 if plan.reaches_bottom else min(reached, default=depth)
    count, whole = len(plan.layers), _whole_params(trainable, len(plan.layers), shape)
    share = _whole_params(trainable, len(at_once), shape) / whole if whole else len(at_once) / max(count, 1)
    if trainable.schedule == "slimfit":
        extra = _whole_params(trainable, 0, shape) / whole if whole else 0.0
        share = extra + (1 - trainable.freeze_rate) * (1 - extra)
    resting = len(_drawn(plan, steps)) - len(at_once) if is_drawn and step is None else 0
    at_rest = (_whole_params(trainable, resting, shape, has_extra=False) / whole) if whole else resting / max(count, 1)
    if trainable.schedule == "slimfit":
        periods = ceil(steps / trainable.every) if step is None else 1
        at_rest = min(periods * share, 1.0) - share
    if whole and (in_4_bit or trainable.schedule == "slimfit"):  # a layer of which a matrix learns is wide
        at_rest = 1.0 - share
    return TrainedSet(count, depth - lowest, whole, share, at_rest)


_KNOWN_BEFOREHAND = ("gradual_unfreezing", "gradual_freezing", "freezeout", "lisa", "badam")
"""Schedules that change the lowest layer that learns, whatever a run measures."""


def mean_backward_layers(config: RunConfig, shape: ModelShape) -> float:
    """Returns how many layers the backward pass goes through in a step, on average over the run.

    What measurements choose is not known before: there it is that of the worst period.
    """
    worst, depth = trained_set(config, shape).backward_layers, shape.num_layers
    if config.trainable.schedule not in _KNOWN_BEFOREHAND or {"embed_tokens", "norms"} & set(config.trainable.extra):
        return worst
    return _mean_depth(LayerSchedule.of(worst_case(config, depth), depth), depth, config.grpo.steps)


@lru_cache(maxsize=64)
def _mean_depth(plan: LayerSchedule, depth: int, steps: int) -> float:
    """It is cached: the planner asks for each of the plans that it compares."""
    return fmean(depth - min(plan.at(step)) for step in range(1, steps + 1))


def _check_modules(trainable: TrainableConfig, shape: ModelShape) -> None:
    for name in trainable.modules:
        if name not in shape.linear_sizes and not name.endswith("norm"):
            what = f"trainable.modules: no layer has a module {name[:40]!r}."
            raise ConfigError(what, hint=f"A layer has {', '.join(shape.linear_sizes)}, and norms.")


def _drawn(plan: LayerSchedule, steps: int) -> set[int]:
    """Returns all layers that learn in some period of a run."""
    periods = range(ceil(steps / plan.trainable.every))
    return {layer for period in periods for layer in plan.at(1 + period * plan.trainable.every)}


_READ_BASE = frozenset({"perplexity", "perplexity_signed"})
"""Rewards that score with the base model in each round; for another one its weights are fetched each time."""


def parks_masters(config: RunConfig) -> bool:
    """Returns whether the float32 copies of layers that rest leave the card: 16 bits a weight compute there.

    Not those of SlimFit, whose matrices are in nearly all layers at once.
    """
    trainable = config.trainable
    is_narrowed = trainable.dtype == "float32" and config.model.dtype != "float32"
    return trainable.method == "full" and trainable.schedule not in ("fixed", "slimfit") and is_narrowed


def parks_originals(config: RunConfig) -> bool:
    """Returns whether 16-bit originals of layers that have learned leave the card: no step reads the base model."""
    reads_base = config.grpo.beta > 0 or not _READ_BASE.isdisjoint(config.rewards)
    return config.trainable.method == "full" and config.model.bits == 16 and not reads_base


def _whole_params(trainable: TrainableConfig, layers: int, shape: ModelShape, *, has_extra: bool = True) -> int:
    if trainable.method == "lora":
        return 0
    sizes = {name: inputs * outputs for name, (inputs, outputs) in shape.linear_sizes.items()}
    each = sum(sizes.get(name, shape.hidden_size) for name in trainable.modules)
    in_layers = layers * (each or shape.layer_params + shape.layer_other_params)
    if not has_extra:
        return in_layers
    norms, embeddings = 2 * shape.num_layers + 1, shape.vocab_size * shape.hidden_size
    extra = {"embed_tokens": embeddings, "lm_head": embeddings, "norm": shape.hidden_size}
    extra["norms"] = (norms - (0 if trainable.modules else 2 * layers)) * shape.hidden_size
    return in_layers + sum(extra[name] for name in trainable.extra)
