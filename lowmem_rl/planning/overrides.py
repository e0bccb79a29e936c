"""Changes to a configuration by dotted key, as a user would write them."""

from collections.abc import Mapping
from typing import Any

from lowmem_rl.config.run_config import RunConfig

Settings = Mapping[str, Any]


def with_overrides(config: RunConfig, settings: Settings) -> RunConfig:
    """Returns the configuration with these values, which the planner knows to be allowed."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    updated = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=updated)


PLANNED = ("memory.micro_batch", "memory.rollout_rows", "memory.checkpointing", "rollout.weights")
"""Keys that can be "auto"."""


def with_planned_values(settings: Settings, resolved: RunConfig) -> dict[str, Any]:
    """Returns settings that leave nothing to the planner: all else stays as it is in the resolved run."""
    return {**settings, **{key: _value(resolved, key) for key in PLANNED if key not in settings}}


def not_already_set(written: RunConfig, settings: Settings) -> dict[str, Any]:
    """Returns the settings without those that stand there already."""
    return {key: value for key, value in settings.items() if value != _value(written, key)}


def differences(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Returns the planned settings in which two resolved runs differ, at their values in the second."""
    return {key: value for key, value in planned(after).items() if value != planned(before)[key]}


def planned(config: RunConfig) -> dict[str, Any]:
    """Returns what stands behind the planned keys of a resolved run."""
    values = (config.micro_batch, config.rollout_rows, config.checkpointing, config.rollout_weights)
    return dict(zip(PLANNED, values, strict=True))


def planner_origins(written: RunConfig) -> dict[str, str]:
    """Returns where the values come from that a run leaves to the planner, by key."""
    return {key: "planner (auto)" for key in PLANNED if _value(written, key) == "auto"}


def as_text(settings: Settings) -> str:
    """Returns settings as they stand behind `--set`: KEY=VALUE, and another `--set` before each further one."""
    return " --set ".join(f"{key}={value}" for key, value in settings.items())


def _value(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def divisors(total: int, at_most: int | None = None) -> list[int]:
    """Returns the divisors of `total` from the smallest up."""
    small = [number for number in range(1, int(total**0.5) + 1) if total % number == 0]
    both = sorted({*small, *(total // number for number in small)})
    return [number for number in both if at_most is None or number <= at_most]
