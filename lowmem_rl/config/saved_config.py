"""The configuration in a run's config.json: for readers that need some of it, and for those that train with it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, defaults, flatten, merge, nested, validate
from lowmem_rl.config.keys import is_known
from lowmem_rl.config.places import absolute_values, after_move
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


def saved_config(reader: RunReader, places: Sequence[ConfigLayer] = ()) -> RunConfig:
    """Returns the configuration of a run whose model is loaded again; `places` name files again that have moved.

    Raises `RunDirError` if a run may not have it, `ConfigError` for another setting in `places`.
    """
    saved, given = at_places(saved_layer(reader), places), merge(places)
    for key, (value, origin) in given.items():
        if saved.values.get(key) != value:
            what = f"{origin} sets {key} to {value!r}, and the run has {saved.values.get(key)!r}."
            raise ConfigError(what, hint="Here it can only give the new place of a file.")
    try:
        return validate(merge([defaults(), saved]))
    except ConfigError as error:
        raise RunDirError(f"{reader.run_dir.config} {_OTHER}.", hint=reader.hint) from error


def at_places(saved: ConfigLayer, places: Sequence[ConfigLayer]) -> ConfigLayer:
    """Returns a run's configuration with the new place of each file that a layer of `places` names again."""
    values = absolute_values(saved.values)
    for layer in places:
        values = after_move(values, absolute_values(layer.values))
    return replace(saved, values=values)


def saved_resolved(reader: RunReader) -> ResolvedConfig:
    """Returns the configuration of a run that continues; the origin of every value is the file.

    Nothing may be left out: an unknown key is refused. Raises `RunDirError`.
    """
    path, found = str(reader.run_dir.config), reader.config_file
    with reader.parsing(reader.run_dir.config, _OTHER):
        written = RunConfig.model_validate(found["config"])
        # Runs of earlier versions have the names of files as they were typed.
        config = RunConfig.model_validate(nested(absolute_values(flatten(written.model_dump()))))
        preset = str(found["preset"])
    return ResolvedConfig(config, dict.fromkeys(flatten(config.model_dump()), path), preset, reader.card or "cpu")
