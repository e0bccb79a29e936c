"""Keys that have no effect in a run: they need no counterpart."""

from collections.abc import Callable, Mapping

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.scale_out.counterparts import Deviation, equal

_NOTE = "it has no effect in this run"
_LORA = ("rank", "alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def is_whole(config: RunConfig) -> bool:
    """Returns whether whole weights learn."""
    return config.trainable.method == "full"


def _has_no_lora(config: RunConfig) -> bool:
    return is_whole(config) or config.adapter.peft_type != "lora"


def _has_no_tinylora(config: RunConfig) -> bool:
    return is_whole(config) or config.adapter.peft_type != "tinylora"


def _is_sixteen_bit(config: RunConfig) -> bool:
    return config.model.bits == 16


_WHEN: Mapping[Callable[[RunConfig], bool], tuple[str, ...]] = {
    _is_sixteen_bit: ("model.checkpoint",),
    _has_no_lora: tuple(f"adapter.{key}" for key in _LORA),
    _has_no_tinylora: ("adapter.u", "adapter.weight_tying"),
    is_whole: ("adapter.peft_type", "adapter.dropout", "adapter.targets"),
    lambda config: not is_whole(config): ("trainable.modules", "trainable.extra", "trainable.dtype"),
    lambda config: config.trainable.select == "none": ("trainable.select_top", "trainable.select_rounds"),
    lambda config: config.trainable.schedule == "fixed": tuple(
        f"trainable.{key}" for key in ("every", "active", "order", "state", "percentile", "freeze_rate")
    ),
    lambda config: config.optimizer.schedule != "multistep": ("optimizer.milestones", "optimizer.decay"),
    lambda config: config.curriculum.by == "none": ("curriculum.how", "curriculum.rates"),
}

UNUSED = tuple(Deviation(key, applies, equal("", _NOTE)) for applies, keys in _WHEN.items() for key in keys)
"""They come before a target's own deviations."""
