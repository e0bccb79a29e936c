"""The configuration of an existing run, with what a command line changes of it."""

from collections.abc import Sequence

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, defaults, flatten, merge, validate
from lowmem_rl.config.places import check_places
from lowmem_rl.config.saved_config import at_places, saved_layer
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader


def of_run(run: RunDir, given: Sequence[ConfigLayer]) -> ResolvedConfig:
    """Returns the configuration of a run under the layers that are given over it.

    Raises `RunDirError` if the directory is no run's, `ConfigError` for a setting, `TaskError` for a missing file.
    """
    reader = RunReader(run)
    merged = merge([defaults(), at_places(saved_layer(reader), given), *given])
    config = validate(merged, [problem for layer in given for problem in layer.problems])
    values = flatten(config.model_dump())
    check_places(values)
    return ResolvedConfig(config, {key: merged[key].origin for key in values}, str(run.path), reader.card or "cpu")
