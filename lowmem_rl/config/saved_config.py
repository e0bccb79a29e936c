"""The configuration in a run's config.json: for readers that need some of it, and for those that train with it."""

from typing import Any

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, defaults, flatten, merge, validate
from lowmem_rl.config.keys import is_known
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.storage.run_reader import RunReader

_OTHER = "is not a configuration of this version of lowmem-rl"


def saved_tables(reader: RunReader) -> dict[str, Any]:
    """Returns the configuration by section, without the keys that only another version knows.

    Raises `RunDirError` if there is none.
    """
    with reader.parsing(reader.run_dir.config, _OTHER):
        return {
            name: {key: value for key, value in found.items() if is_known(f"{name}.{key}")}
            if not is_known(name)
            else found
            for name, found in reader.config_file["config"].items()
            if name in RunConfig.model_fields
        }


def saved_layer(reader: RunReader) -> ConfigLayer:
    """Returns the configuration as a layer that others may override. Raises `RunDirError`."""
    return ConfigLayer(str(reader.run_dir.config), flatten(saved_tables(reader)), replaces_rewards=True)


def recorded_config(reader: RunReader) -> RunConfig:
    """Returns the configuration of a run that is only looked at. Raises `RunDirError`.

    It need not obey the rules between keys: they may be newer than the run.
    """
    tables = saved_tables(reader)
    with reader.parsing(reader.run_dir.config, _OTHER):
        return RunConfig.model_validate(tables)


def saved_config(reader: RunReader) -> RunConfig:
    """Returns the configuration of a run whose model is loaded again. Raises `RunDirError` if a run may not have it."""
    try:
        return validate(merge([defaults(), saved_layer(reader)]))
    except ConfigError as error:
        raise RunDirError(f"{reader.run_dir.config} {_OTHER}.", hint=reader.hint) from error


def saved_resolved(reader: RunReader) -> ResolvedConfig:
    """Returns the configuration of a run that continues; the origin of every value is the file.

    Nothing may be left out: an unknown key is refused. Raises `RunDirError`.
    """
    path, found = str(reader.run_dir.config), reader.config_file
    with reader.parsing(reader.run_dir.config, _OTHER):
        config, preset = RunConfig.model_validate(found["config"]), str(found["preset"])
    return ResolvedConfig(config, dict.fromkeys(flatten(config.model_dump()), path), preset, reader.card or "cpu")
