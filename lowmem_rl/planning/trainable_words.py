"""What a choice of weights costs and saves, in words: fewer adapters buy time, whole layers cost memory."""

from collections.abc import Iterator

from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.memory import parked, terms
from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.memory.lowmem_sampler import kept_states
from lowmem_rl.memory.trained_set import TrainedSet, trained_set
from lowmem_rl.memory.workload import can_keep_states, workload_of
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.search import PlanTarget, choose
from lowmem_rl.units import GIB, MIB


def trainable_words(written: RunConfig, config: RunConfig, target: PlanTarget) -> Iterator[str]:
    """Yields what `trainable` does to a run's memory and time; nothing if adapters learn in all layers.

    `config` is the run resolved; what it is compared with is planned as it would be.
    """
    if config.trainable == TrainableConfig():
        return
    every = choose(written.model_copy(update={"trainable": TrainableConfig()}), target)
    trained = trained_set(config, target.shape)
    if config.trainable.method == "full":
        yield _whole(target.planned(config), target.planned(every), target.shape, max(trained.layers, 1))
    elif trained.layers < target.shape.num_layers or config.trainable.schedule != "fixed":
        yield _fewer_adapters(config, every, target)
    yield from _depth(trained, target.shape)
    yield from _states(written, config, target)


def _fewer_adapters(config: RunConfig, every: RunConfig, target: PlanTarget) -> str:
    """Adapters are small, and the rollout is mostly the peak: what fewer of them save is time."""
    mine, others = target.planned(config), target.planned(every)
    time = target.relative_step_time(config) / target.relative_step_time(every)
    plans = _plan(config), _plan(every)
    room = "" if plans[0] == plans[1] else f" ({plans[0]} instead of {plans[1]})"
    buys = "memory, because the backward pass is the peak, and" if others.peak_phase == "backward" else ""
    return (
        f"against adapters in all layers the peak is {_peak(mine)} instead of {_peak(others)}, and a step takes "
        f"{time:.2g}x the time: fewer layers buy {buys} time, or a larger micro-batch without recomputation{room}"
    ).replace("  ", " ")


def _whole(mine: MemoryEstimate, adapters: MemoryEstimate, shape: ModelShape, layers: int) -> str:
    """Whole weights, their gradients, their states: what they add, next to what adapters would."""
    held, gradients = _learned(mine, shape)
    return (
        f"{mine.workload.whole_params:,} numbers learn whole: {_size(held)} of weights and optimizer states in every "
        f"phase and {_size(gradients)} of gradients, {_size((held + gradients) / layers)} a layer; adapters in all "
        f"layers take {_size(sum(_learned(adapters, shape)))}"
    )


def _depth(trained: TrainedSet, shape: ModelShape) -> Iterator[str]:
    if 0 < trained.layers < shape.num_layers == trained.backward_layers:
        yield (
            f"the backward pass goes through all {shape.num_layers} layers, because the lowest learns: no activation "
            f"is saved (last:{trained.layers} keeps none of the layers below)"
        )


def _states(written: RunConfig, config: RunConfig, target: PlanTarget) -> Iterator[str]:
    """Whether the update begins at the lowest layer that learns, and what that is worth."""
    if not can_keep_states(config, target.shape):
        return
    lowest = target.shape.num_layers - trained_set(config, target.shape).backward_layers
    what, off = f"what enters layer {lowest}", with_overrides(config, {"memory.kept_states": "off"})
    if config.keeps_states:
        place = "on the card" if target.card and config.memory.kept_states == "card" else "in host RAM"
        size = _size(kept_states(workload_of(config, target.shape), target.shape).expected_bytes)
        ratio = target.relative_step_time(config) / target.relative_step_time(off)
        yield f"{what} is kept while sampling, {size} {place}: the update begins there, {ratio:.2g}x the step time"
    elif written.memory.kept_states == "auto":
        host = with_overrides(config, {"memory.kept_states": "host"})
        why = "it would save less than 2 % of a step" if target.fits(host) else "it does not fit"
        yield f"{what} is not kept while sampling: {why}"


def _learned(needed: MemoryEstimate, shape: ModelShape) -> tuple[int, int]:
    """Returns the bytes on the card of what learns, or has, with its optimizer states, and of its gradients."""
    work = needed.workload
    weights = (terms.adapter(work, shape), terms.whole_weights(work), parked.resting_copies(work))
    states = (terms.optimizer_states(work, shape), terms.paged_states(work, shape))
    held = sum(one.expected_bytes for one in (*weights, *states))
    return held, terms.gradients(work, shape).expected_bytes


def _peak(needed: MemoryEstimate) -> str:
    return f"{_size(needed.expected_bytes)} ({needed.peak_phase})"


def _plan(config: RunConfig) -> str:
    return f"{config.micro_batch} rows, checkpointing {config.checkpointing}"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.1f} MiB"
