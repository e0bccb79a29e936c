"""The run of a preset whose step is measured: a function of the preset's name and of which weights are loaded.

So a record needs only these two and the planner's choices, and who reads it composes the same run again.
"""

from typing import Any, Literal, get_args

from lowmem_rl.config.compose import ResolvedConfig, resolve
from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.lookup import CATALOGUE, TINY, ModelShape, load_shape
from lowmem_rl.planning.overrides import PLANNED, planned
from lowmem_rl_bench.prove.settings import ON_QUESTIONS, SHORT, Settings, as_texts

Weights = Literal["cached", "random", "embedded"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
_ENGINE = {"rollout.engine": "lowmem"}
"""With `generate` the memory would not be what the estimate predicts."""
_NAMES = ("micro_batch", "rollout_rows", "checkpointing", "kept_states", "rollout_weights")
"""Of the planned keys in a record, in the order of `PLANNED`."""


def settings_of(preset: str, weights: Weights) -> Settings:
    """Returns the settings over the preset's: made-up questions, our engine; short rows of the embedded model."""
    if weights != "embedded":
        return ON_QUESTIONS | _ENGINE
    auto = dict.fromkeys(("memory.micro_batch", "memory.rollout_rows"), "auto")
    return ON_QUESTIONS | _ENGINE | SHORT | auto | {"model.name": TINY, "trainable.layers": _layers_of(preset)}


def _layers_of(preset: str) -> str:
    """Returns the preset's layers that learn, or the last one if the embedded model has fewer."""
    layers = resolve(preset=preset).config.trainable.layers
    try:
        layers_of(layers, load_shape(TINY).num_layers)
    except ConfigError:
        return "last:1"
    return layers


def compose(preset: str, weights: Weights, further: Settings | None = None) -> ResolvedConfig:
    """Returns the run, with `further` settings over it. Raises `UnknownName`, or `ConfigError` for such a setting."""
    return resolve(preset=preset, settings=as_texts(settings_of(preset, weights) | (further or {})))


def shape_of(preset: str, weights: Weights) -> ModelShape:
    """Returns the shape of the model that is loaded, without a look at the hub's cache."""
    name = TINY if weights == "embedded" else load_preset(preset).model
    return load_shape(TINY) if name == TINY else CATALOGUE[name]


def planned_facts(config: RunConfig) -> dict[str, Any]:
    """Returns what the planner chose, as a record has it."""
    chosen = dict(zip(_NAMES, planned(config).values(), strict=True))
    return {"bits": config.model.bits, **chosen}


def planned_settings(facts: dict[str, Any]) -> Settings:
    """Returns the settings that leave nothing to the planner, from a record's facts."""
    return {"model.bits": facts["bits"]} | {key: facts[name] for key, name in zip(PLANNED, _NAMES, strict=True)}
