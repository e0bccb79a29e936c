"""The command that makes a run again, from where its settings came from."""

import json
from collections.abc import Iterator
from shlex import join

from lowmem_rl.config.compose import flatten, parse_value
from lowmem_rl.config.presets import load_presets
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.page_table import PageTable
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import part

GIVEN = ("default", "preset ")
"""How the origins of values begin that the preset brings by itself."""


def command_of(record: RunRecord) -> str:
    """Returns a `train` command with every setting that differs from the preset; no file of the user's is needed."""
    preset = ["--preset", str(record.preset)] if _is_shipped(record) else []
    return join(["lowmem-rl", "train", *preset, *_settings(record), *_rewards(record)])


def settings_of(record: RunRecord) -> PageTable:
    """Returns each setting that is neither the preset's nor a default, with where it came from."""
    rows = (
        (one_line(key), one_line(json.dumps(value, ensure_ascii=False), 200), one_line(origin))
        for key, value in flatten(record.config).items()
        if not (origin := str(record.origins.get(key, "default"))).startswith(GIVEN)
    )
    return PageTable("Set otherwise than by the preset", "", ("key", "value", "by"), tuple(rows))


def _settings(record: RunRecord) -> Iterator[str]:
    for key, value in flatten(record.config).items():
        if _is_chosen(record, key) and not key.startswith("rewards.") and value is not None:
            yield from ("--set", f"{key}={_as_typed(value)}")


def _rewards(record: RunRecord) -> Iterator[str]:
    """Yields all rewards where one was chosen: --reward replaces the preset's."""
    rewards = part(record.config, "rewards")
    if any(_is_chosen(record, f"rewards.{name}") for name in rewards):
        for name, weight in rewards.items():
            yield from ("--reward", f"{name}={_as_typed(weight)}")


def _is_chosen(record: RunRecord, key: str) -> bool:
    return not (_is_shipped(record) and str(record.origins.get(key, "default")).startswith(GIVEN))


def _is_shipped(record: RunRecord) -> bool:
    """False for a preset in a file of the user's, which others do not have."""
    return record.preset in {preset.name for preset in load_presets()}


def _as_typed(value: object) -> str:
    return value if isinstance(value, str) and parse_value(value) == value else json.dumps(value, ensure_ascii=False)
