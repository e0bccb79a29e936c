"""Changes to a configuration by dotted key, as a user would write them."""

from collections.abc import Mapping
from typing import Any

from lowmem_rl.config.run_config import RunConfig, Section

Settings = Mapping[str, Any]
PLANNED = (
    "memory.micro_batch",
    "memory.rollout_rows",
    "memory.checkpointing",
    "memory.kept_states",
    "rollout.weights",
)
"""Keys that can be "auto"."""
_OPTIONAL = ("memory.kept_states", "off")


def with_overrides(config: RunConfig, settings: Settings) -> RunConfig:
    """Returns the configuration with these values; rules that span several sections are not checked.

    Raises `ValueError` for an unknown key or a value that its field does not take.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if not isinstance(getattr(config, section, None), Section):
            raise ValueError(f"{key} is not a key of a section")
        sections.setdefault(section, {})[name] = value
    before = {name: getattr(config, name) for name in sections}
    updated = {name: type(old).model_validate(vars(old) | sections[name]) for name, old in before.items()}
    return config.model_copy(update=updated)


def with_planned_values(settings: Settings, resolved: RunConfig) -> dict[str, Any]:
    """Returns settings that leave nothing to the planner: all else stays as it is in the resolved run.

    It may keep states if the run did not: it does so only if they fit.
    """
    left = [key for key in PLANNED if key not in settings and (key, _value(resolved, key)) != _OPTIONAL]
    return {**settings, **{key: _value(resolved, key) for key in left}}


def not_already_set(written: RunConfig, settings: Settings) -> dict[str, Any]:
    """Returns the settings that differ from what is written already."""
    return {key: value for key, value in settings.items() if value != _value(written, key)}


def planned(config: RunConfig) -> dict[str, Any]:
    """Returns the values of the planned keys of a resolved run."""
    values = (
        config.micro_batch,
        config.rollout_rows,
        config.checkpointing,
        config.memory.kept_states,
        config.rollout_weights,
    )
    return dict(zip(PLANNED, values, strict=True))


PLANNER = "planner (auto)"
"""The origin of a value that the planner chose."""


def planner_origins(written: RunConfig) -> dict[str, str]:
    """Returns the origin of each value that a run leaves to the planner, by key."""
    return {key: PLANNER for key in (*PLANNED, "model.bits") if _value(written, key) == "auto"}


def as_text(settings: Settings) -> str:
    """Returns settings as they are written after `--set`: KEY=VALUE, and another `--set` before each further one."""
    return " --set ".join(f"{key}={value}" for key, value in settings.items())


def divisors(total: int, at_most: int | None = None) -> list[int]:
    """Returns the divisors of `total` from the smallest up."""
    small = [number for number in range(1, int(total**0.5) + 1) if total % number == 0]
    both = sorted({*small, *(total // number for number in small)})
    return [number for number in both if at_most is None or number <= at_most]


def _value(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    value = getattr(config, section)
    return getattr(value, name) if name else value
