"""The adapter with which a run continues elsewhere: it is whole, and has the shape that is written."""

from pathlib import Path

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import read_adapter
from lowmem_rl.engine.start import check_start
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.scale_out.unused_keys import is_whole
from lowmem_rl.trainable.selection import with_layers


def check_learned(adapter: Path, config: RunConfig, shape: ModelShape) -> None:
    """Checks the adapter against the run from the headers alone, as `train --from` does.

    Raises `RunDirError` if it is damaged or another model's, `ConfigError` for whole weights or another shape.
    """
    if is_whole(config):
        raise ConfigError(
            "--continue hands on an adapter, and this run has learned whole weights.",
            hint="Write them as a model with `lowmem-rl export RUN --to merged`, and name it: --set model.name=FOLDER.",
        )
    try:
        config = _with_its_words(config, read_adapter(adapter).trainable.layers, shape.num_layers)
        check_start(config.model_copy(update={"start_from": str(adapter)}), shape)
    except ConfigError as error:
        raise ConfigError(f"--continue: {error}", hint="Leave out what changes the adapter, or --continue.") from error


def _with_its_words(config: RunConfig, saved: str, depth: int) -> RunConfig:
    """Returns the run with its layers as the adapter names them, by numbers, if they are the same ones."""
    is_same = layers_of(config.trainable.layers, depth) == layers_of(saved, depth)
    return with_layers(config, saved) if is_same else config
