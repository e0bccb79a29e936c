"""The tensors of an adapter by their sizes: LoRA's with the rank of each module, DoRA's magnitudes, TinyLoRA's few."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

from lowmem_rl.config.rank_pattern import module_name, patterns_of
from lowmem_rl.config.run_config import AdapterConfig, RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.shape import FUSED, PHI3, ModelShape
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trainable.selection import worst_case

TensorSizes = tuple[tuple[int, int], ...]
"""Numbers of a tensor, and how many tensors have as many."""
SINGULAR_VECTORS = 2
"""Of each weight that TinyLoRA keeps: the paper's and PEFT's r."""


def learning_tensors(config: RunConfig, shape: ModelShape) -> TensorSizes:
    """Returns the sizes of the tensors of a run's adapter that ever learn; none for whole weights.

    Of layers that are still to be selected the lowest ones count.

    Raises `ConfigError` for layers that the model lacks, and for a pattern that names no module with an adapter.
    """
    if config.trainable.method == "full":
        return ()
    return _learning_tensors(config.adapter.model_dump_json(), _layers(config, shape), shape)


def numbers_in(tensors: TensorSizes) -> int:
    """Returns the numbers of all tensors together."""
    return sum(numbers * times for numbers, times in tensors)


@lru_cache(maxsize=64)
def _learning_tensors(adapter_json: str, layers: tuple[int, ...], shape: ModelShape) -> TensorSizes:
    """It is cached, by a text because tables of ranks have no hash: the planner asks for each plan that it compares."""
    adapter = AdapterConfig.model_validate_json(adapter_json)
    modules = dict(_modules(adapter.targets, layers, shape))
    patterns = patterns_of("adapter.rank_pattern", tuple(adapter.rank_pattern), tuple(modules))
    patterns_of("adapter.alpha_pattern", tuple(adapter.alpha_pattern), tuple(modules))
    if adapter.peft_type == "tinylora":
        return ((adapter.u, _groups(len(modules), adapter.weight_tying)),)
    sizes: list[int] = []
    for name, (inputs, outputs) in modules.items():
        rank = adapter.rank_pattern.get(patterns.get(name, ""), adapter.rank)
        sizes += [rank * inputs, rank * outputs, *([outputs] if adapter.use_dora else [])]
    return tuple(Counter(sizes).items())


def frozen_numbers(config: RunConfig, shape: ModelShape) -> int:
    """Returns the float32 numbers of an adapter that never learn: TinyLoRA's singular vectors and random matrices."""
    if config.trainable.method == "full" or config.adapter.peft_type == "lora":
        return 0
    fixed, modules = (
        config.adapter.u * SINGULAR_VECTORS**2,
        _modules(config.adapter.targets, _layers(config, shape), shape),
    )
    return sum(SINGULAR_VECTORS * (inputs + outputs) + fixed for _, (inputs, outputs) in modules)


def _layers(config: RunConfig, shape: ModelShape) -> tuple[int, ...]:
    return LayerSchedule.of(worst_case(config, shape.num_layers), shape.num_layers).layers


def _modules(names: Iterable[str], layers: Iterable[int], shape: ModelShape) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the name of each linear layer with an adapter, its inputs and outputs, in the model's order."""
    targets = sizes_of(names, shape)
    wanted = {target: sizes for target, sizes in shape.linear_sizes.items() if target in targets}
    for layer in sorted(layers):
        for target, sizes in (_fused(wanted, shape) if shape.architecture == PHI3 else wanted).items():
            yield module_name(layer, target), sizes


def _fused(targets: Iterable[str], shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Returns the layers of Phi-3 that get an adapter: a fused one gets all of it if any of its parts is named."""
    found: dict[str, tuple[int, int]] = {}
    for target in targets:
        fused = next((name for name, parts in FUSED.items() if target in parts), target)
        parts = [shape.linear_sizes[part] for part in FUSED.get(fused, (target,))]
        found[fused] = parts[0][0], sum(outputs for _, outputs in parts)
    return found


def sizes_of(targets: Iterable[str], shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Returns inputs and outputs of the linear layers that get an adapter. Raises `ConfigError` for any other name."""
    sizes = shape.linear_sizes
    for name in targets:
        if name not in sizes:
            is_whole = name in ("embed_tokens", "lm_head")
            why = ": Unsloth trains that matrix whole, with gradients and states to match" if is_whole else ""
            what = f"adapter.targets: no formula for {name!r}{why}."
            raise ConfigError(what, hint=f"The linear layers are {', '.join(sizes)}.")
    return {name: sizes[name] for name in targets}


def _groups(modules: int, weight_tying: float) -> int:
    """Returns how many groups of modules share their numbers (peft 0.21 tuners/tinylora/model.py).

    A group has whole modules: fewer groups than asked for may be needed.
    """
    if not modules:
        return 0
    asked = max(1, round(modules * (1.0 - weight_tying)))
    size = max(1, modules // asked)
    return min(asked, -(-modules // size))
