"""What each setting becomes in another trainer, as data: a table for the usual case, deviations for the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lowmem_rl.config.keys import known_keys
from lowmem_rl.config.problems import shown
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.toml_text import toml_value
from lowmem_rl.errors import ConfigError, UnknownName
from lowmem_rl.planning.overrides import not_already_set, with_overrides

Status = Literal["equal", "changed", "no counterpart"]


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What a key becomes in a target."""

    name: str
    """The target's own key; empty if there is none."""
    status: Status = "equal"
    note: str = ""
    """How gradient or result differ, or why they do not."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A case in which a key has another counterpart than its table says. The first that applies counts."""

    key: str
    applies: Callable[[RunConfig], bool]
    counterpart: Counterpart
    instead: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run that replace it, if the user accepts that; none if it stays."""
    fix: str = ""
    """What to do if there is nothing to accept: such a run is refused."""


@dataclass(frozen=True, slots=True)
class MappedKey:
    """One row of the mapping."""

    key: str
    value: Any
    counterpart: Counterpart
    is_accepted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the row of `scale_out.json`."""
        found = self.counterpart
        facts = {"key": self.key, "value": self.value, "counterpart": found.name, "status": found.status}
        return facts | {"note": found.note, "accepted": self.is_accepted}


@dataclass(frozen=True, slots=True)
class KeyMap:
    """All keys of a run in a target, and the run that the target can do."""

    rows: tuple[MappedKey, ...]
    config: RunConfig
    """With what was accepted in place of settings without counterpart."""


def equal(name: str, note: str = "") -> Counterpart:
    """Returns a counterpart with the same gradient and the same result."""
    return Counterpart(name, "equal", note)


def changed(name: str, note: str) -> Counterpart:
    """Returns a counterpart that differs as `note` says."""
    return Counterpart(name, "changed", note)


def lacking(note: str) -> Counterpart:
    """Returns that there is no counterpart."""
    return Counterpart("", "no counterpart", note)


def map_keys(
    config: RunConfig,
    target: str,
    table: Mapping[str, Counterpart],
    deviations: Sequence[Deviation],
    accepted: Set[str] = frozenset(),
) -> KeyMap:
    """Returns one row for each key of `RunConfig`.

    Raises `UnknownName` for an accepted key that does not exist, `ConfigError` for settings that change the objective,
    have no counterpart and are not accepted, and for accepted ones that the target does not lack.
    """
    for key in accepted - known_keys().keys():
        raise UnknownName("key", key, known_keys())
    made, taken = _accept(config, target, deviations, accepted)
    _check_needed(config, target, accepted - taken.keys())
    found = _applying(deviations, made) | taken
    return KeyMap(tuple(_row(config, key, table, found, taken.keys()) for key in known_keys()), made)


def _accept(
    config: RunConfig, target: str, deviations: Sequence[Deviation], accepted: Set[str]
) -> tuple[RunConfig, dict[str, Deviation]]:
    """Returns the run that the target can do, and what was accepted for that. Raises `ConfigError` for what was not.

    With another value in place of what is accepted, a key may have an effect that it did not have: then that is mapped
    and refused, too.
    """
    taken: dict[str, Deviation] = {}
    while True:
        found = _applying(deviations, config)
        _refuse(config, target, found, accepted)
        further = {key: found[key] for key in found if key in accepted - taken.keys() and found[key].instead}
        if not further:
            return config, taken
        taken |= further
        config = _replaced(config, {key: value for one in further.values() for key, value in one.instead.items()})


def _applying(deviations: Sequence[Deviation], config: RunConfig) -> dict[str, Deviation]:
    """Returns the deviation of each key that has one in this run."""
    applying = {deviation.key: deviation for deviation in reversed(deviations) if deviation.applies(config)}
    return {key: applying[key] for key in known_keys() if key in applying}


def _replaced(config: RunConfig, instead: Mapping[str, Any]) -> RunConfig:
    """Returns the run with other values; a key without a section is the run's own."""
    of_sections = {key: value for key, value in instead.items() if "." in key}
    own = {key: value for key, value in instead.items() if key not in of_sections}
    return with_overrides(config, of_sections).model_copy(update=own)


def _row(
    config: RunConfig, key: str, table: Mapping[str, Counterpart], found: Mapping[str, Deviation], taken: Set[str]
) -> MappedKey:
    deviation, value = found.get(key), value_of(config, key)
    if deviation is None or key not in taken:
        return MappedKey(key, value, deviation.counterpart if deviation else table[key])
    note = f"{deviation.counterpart.note}; it runs with {_settings(config, deviation.instead)} instead"
    return MappedKey(key, value, replace(deviation.counterpart, note=note), is_accepted=True)


def value_of(config: RunConfig, key: str) -> Any:
    """Returns the value of a dotted key as JSON has it."""
    section, _, name = key.partition(".")
    values = config.model_dump(mode="json")
    return values[section][name] if name else values[section]


def _refuse(config: RunConfig, target: str, found: Mapping[str, Deviation], accepted: Set[str]) -> None:
    refused = [one for key, one in found.items() if one.fix or (one.instead and key not in accepted)]
    if not refused:
        return
    named = [f"{one.key} = {shown(value_of(config, one.key))} ({one.counterpart.note})" for one in refused]
    fixes = list(dict.fromkeys(_fixes(config, refused)))
    raise ConfigError(f"{target} cannot do {'; nor '.join(named)}.", hint=" ".join(fixes))


def _check_needed(config: RunConfig, target: str, needless: Set[str]) -> None:
    """Raises `ConfigError` if there are accepted keys with nothing to accept: perhaps others were meant."""
    if needless:
        named = " or ".join(f"{key} = {shown(value_of(config, key))}" for key in sorted(needless))
        what = f"--accept {' '.join(sorted(needless))}: {target} does not refuse {named}."
        raise ConfigError(what, hint="Leave it out: only a setting that is refused can be accepted.")


def _fixes(config: RunConfig, refused: Sequence[Deviation]) -> Iterator[str]:
    yield from (one.fix for one in refused if one.fix)
    if acceptable := [one for one in refused if not one.fix]:
        options = " ".join(f"--accept {one.key}" for one in acceptable)
        instead = {key: value for one in acceptable for key, value in one.instead.items()}
        yield f"{options} runs with {_settings(config, instead)} instead."


def _settings(config: RunConfig, instead: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_text(value)}" for key, value in not_already_set(config, instead).items())


def _text(value: Any) -> str:
    return "unset" if value is None else toml_value(list(value) if isinstance(value, tuple) else value)
