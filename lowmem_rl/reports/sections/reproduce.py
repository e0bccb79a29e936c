"""The command that trains a run again, from the origins of its settings."""

import json
from collections.abc import Iterator
from shlex import join

from lowmem_rl.config.compose import flatten, parse_value
from lowmem_rl.config.presets import load_presets
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.page_table import PageTable
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import part

_GIVEN = ("default", "preset ")
"""The origins of values that come with the preset start so."""


def command_of(record: RunRecord) -> str:
    """Returns a `train` command with every setting that differs from the preset; no file of the user's is needed."""
    return join(["lowmem-rl", "train", *_options(record)])


def settings_of(record: RunRecord) -> PageTable:
    """Returns each setting that is neither the preset's nor a default, with its origin."""
    rows = (
        (one_line(key), one_line(json.dumps(value, ensure_ascii=False), 200), one_line(origin))
        for key, value in flatten(record.config).items()
        if not (origin := _origin(record, key)).startswith(_GIVEN)
    )
    return PageTable("Settings that differ from the preset", "", ("key", "value", "from"), tuple(rows))


def _options(record: RunRecord) -> Iterator[str]:
    # Others do not have a preset that is a file of the user's.
    is_shipped = record.preset in {preset.name for preset in load_presets()}
    if is_shipped:
        yield from ("--preset", str(record.preset))
    config = flatten(record.config)
    chosen = [key for key in config if not (is_shipped and _origin(record, key).startswith(_GIVEN))]
    for key in chosen:
        if not key.startswith("rewards.") and config[key] is not None:
            yield from ("--set", f"{key}={_as_typed(config[key])}")
    rewards = part(record.config, "rewards")
    if any(f"rewards.{name}" in chosen for name in rewards):  # --reward replaces all of the preset's
        for name, weight in rewards.items():
            yield from ("--reward", f"{name}={_as_typed(weight)}")


def _origin(record: RunRecord, key: str) -> str:
    return str(record.origins.get(key, "default"))


def _as_typed(value: object) -> str:
    if isinstance(value, str) and parse_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(", ", " = "))  # an inline table of TOML
