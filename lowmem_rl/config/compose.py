"""From layers to one `RunConfig`: defaults < preset < config files < `--set` < named flags.

Layers hold raw values by dotted key. The last layer that names a key wins, and its name is kept as the value's
origin. The result is validated once, and all problems are reported together. Whether a named reward or task exists
is checked in the registries of rewards and tasks.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lowmem_rl.config.keys import REWARDS, find_key, fix_for_unknown, is_known, sections
from lowmem_rl.config.places import absolute_values
from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.problems import ConfigProblem, as_one_error, is_hostile, shown, shown_key
from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, near_names
from lowmem_rl.models.hardware import CARDS

_TASK = "task.name"
_WINDOWS_PATH = "Write a Windows path in single quotes, 'C:\\data', or with slashes, \"C:/data\"."
TASK_DATA = (
    *("task.levels", "task.path", "task.hub", "task.subset", "task.columns", "task.splits"),
    *("task.max_bad_share", "task.eval_share", "task.answer"),
)
"""Keys that mean something only together with the task."""


@dataclass(frozen=True, slots=True)
class ConfigLayer:
    """Raw values by dotted key, from one origin; `problems` are entries that could not even be read."""

    origin: str
    values: Mapping[str, object]
    replaces_rewards: bool = False
    """Drops the rewards of lower layers instead of merging with them by name."""
    problems: tuple[ConfigProblem, ...] = ()
    preset: str | None = None
    """Its name, if it is a preset or a copied one, that is a file with a `[preset]` table: a run can start from it."""
    card: str = ""
    """The card that the preset is made for."""


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A run's configuration and the origin of each value."""

    config: RunConfig
    origins: Mapping[str, str]
    """By dotted key: "default", "preset NAME", a file, "--set" or a flag."""
    preset: str
    """The preset's name; the file's name if a config file is a preset itself."""
    card: str
    """The card that the preset is made for."""

    @property
    def named_origins(self) -> dict[str, str]:
        """Origins of the names that may be code of the user: the tasks' and the rewards'."""
        rewards = {name: self.origins[f"{REWARDS}.{name}"] for name in self.config.rewards}
        further = dict.fromkeys(self.config.eval.tasks, self.origins["eval.tasks"])
        return {self.config.task.name: self.origins[_TASK]} | further | rewards


class SettingEntry(NamedTuple):
    """A raw value and its origin."""

    value: object
    origin: str


def resolve(
    *,
    preset: str | None = None,
    fallback: str = "tiny-cpu",
    config_files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    flags: Sequence[ConfigLayer] = (),
    start: ConfigLayer | None = None,
) -> ResolvedConfig:
    """Returns the configuration that all layers make together.

    Without `preset`, the run starts from a config file with a `[preset]` table (a copied preset), else from the
    preset `fallback`. `start` is what the adapter decides that the run starts from: it is over the preset, and below
    what the user names. Raises `ConfigError` with every problem at once, `UnknownName` for the preset.
    """
    layers = named_layers(preset=preset, config_files=config_files, settings=settings, flags=flags)
    base = next((layer for layer in layers if layer.preset), None)
    if base is None:
        base = _preset_layer(fallback)
        layers.insert(0, base)
    if start is not None:
        layers.insert(layers.index(base) + 1, start)
    merged = merge([defaults(), *layers])
    config = validate(merged, [problem for layer in layers for problem in layer.problems])
    origins = {key: merged[key].origin for key in flatten(config.model_dump())}
    return ResolvedConfig(config, origins, base.preset or "", base.card)


def named_layers(
    *,
    preset: str | None = None,
    config_files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    flags: Sequence[ConfigLayer] = (),
) -> list[ConfigLayer]:
    """Returns only the layers that the user named: the changes to an existing run's configuration."""
    layers = [*map(read_config_file, config_files), read_assignments("--set", settings), *flags]
    return layers if preset is None else [_preset_layer(preset), *layers]


def defaults() -> ConfigLayer:
    """Returns the lowest layer: every key with its default."""
    return ConfigLayer("default", flatten(RunConfig().model_dump()))


def flatten(tables: Mapping[str, object]) -> dict[str, object]:
    """Returns values by dotted key. Tables are one level deep; deeper ones are left for validation to refuse."""
    flat: dict[str, object] = {}
    for name, value in tables.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def nested(values: Mapping[str, object]) -> dict[str, Any]:
    """Returns the tables of values by dotted key: the inverse of `flatten`."""
    tables: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            tables.setdefault(section, {})[name] = value
        else:
            tables[section] = value
    return tables


def merge(layers: Iterable[ConfigLayer]) -> dict[str, SettingEntry]:
    """Returns the last value of each key with its origin; rewards merge by name unless a layer replaces them.

    Files are named from the root on: a name as it was typed holds in one directory.
    """
    merged: dict[str, SettingEntry] = {}
    placed = (replace(layer, values=absolute_values(layer.values)) for layer in layers)
    for layer in _with_fresh_task_data(placed):
        if layer.replaces_rewards:
            merged = {key: entry for key, entry in merged.items() if not key.startswith(f"{REWARDS}.")}
        merged |= {key: SettingEntry(value, layer.origin) for key, value in layer.values.items()}
    return merged


def _with_fresh_task_data(layers: Iterable[ConfigLayer]) -> Iterator[ConfigLayer]:
    """Yields the layers. Before one that names another task, it yields defaults for the old task's data.

    The old task's data is what was set up to the layer that named that task. What a later layer set without naming
    a task was not meant for the old one, and stays: `--set task.path=DATA --task gsm8k`.
    """
    task, later = None, set[str]()
    for layer in layers:
        if (named := layer.values.get(_TASK)) is None:
            later |= layer.values.keys()
        else:
            if task not in (None, named):
                default = defaults()
                yield ConfigLayer(default.origin, {key: default.values[key] for key in TASK_DATA if key not in later})
            task, later = named, set()
        yield layer


def _preset_layer(name: str) -> ConfigLayer:
    found = load_preset(name)
    return ConfigLayer(f"preset {found.name}", flatten(found.values), preset=found.name, card=found.card)


def read_config_file(path: Path) -> ConfigLayer:
    """Reads a TOML file. Raises `ConfigError` if it cannot be read, is not UTF-8, not TOML, or for an unknown card."""
    # A file named "--set" must not pass for the command line, which may run code without --allow-code.
    name = shown_key(f"./{path}" if str(path).startswith("-") else str(path))
    try:
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from error
    except RecursionError as error:
        raise ConfigError(f"{name} nests too deeply.", hint="Sections are one level deep: [grpo].") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {name}: {error.strerror}.", hint="--config takes a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}.", hint=_toml_fix(path, str(error))) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{name}: {error}.", hint="--config takes a TOML file.") from error
    if not isinstance(tables.get("preset"), dict):
        return ConfigLayer(name, flatten(tables))
    card = _known_card(tables.pop("preset").get("card"), name)
    return ConfigLayer(name, flatten(tables), preset=path.stem, card=card)


def _toml_fix(path: Path, error: str) -> str:
    """Returns the fix for a line that is not TOML: in "quotes" the backslashes of a Windows path begin escapes."""
    lines = path.read_text("utf-8-sig").splitlines()
    place = re.search(r"at line (\d+)", error)
    line = lines[int(place[1]) - 1] if place and int(place[1]) <= len(lines) else ""
    return _WINDOWS_PATH if "\\" in line and '"' in line else 'A line of TOML is `key = value`; text is in "quotes".'


def _known_card(card: object, file: str) -> str:
    known = ["cpu", *CARDS]
    if not isinstance(card, str) or card not in known:
        found = "has no card" if card is None else f"names an unknown card, {shown(card)}"
        raise ConfigError(f"{file}: [preset] {found}.", hint=near_names(str(card or ""), known))
    return card


def read_assignments(
    origin: str, texts: Iterable[str], *, prefix: str = "", replaces_rewards: bool = False
) -> ConfigLayer:
    """Returns the layer of a repeated `KEY=VALUE` option, with `prefix` before each key."""
    values: dict[str, object] = {}
    problems: list[ConfigProblem] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            problems.append(ConfigProblem(f"{origin} {shown(text)} is not KEY=VALUE", f"Write {origin} KEY=VALUE."))
            continue
        name = prefix + key.strip()
        table = {name: parse_value(value)}
        parsed = table if "." in name else flatten(table)  # a table in a section is one value
        twice = [f"{shown_key(name)} is given twice by {origin}" for name in parsed if name in values]
        problems += [ConfigProblem(what, "Give it once.") for what in twice]
        values |= parsed
    return ConfigLayer(origin, values, replaces_rewards, tuple(problems))


def parse_value(text: str) -> object:
    """Returns `text` read as a TOML value, or `text` itself if it is not one: `8`, `[1, 2]`, `gsm8k`."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text could add further keys.
    return parsed["value"] if parsed.keys() == {"value"} else text


def validate(merged: Mapping[str, SettingEntry], problems: Sequence[ConfigProblem] = ()) -> RunConfig:
    """Returns the configuration. Raises one `ConfigError` with `problems` and all that is wrong in `merged`."""
    refused = {key: problem for key, entry in merged.items() if (problem := _refuse(key, entry))}
    tables = nested({key: entry.value for key, entry in merged.items() if key not in refused})
    found = [*problems, *refused.values()]
    try:
        config = RunConfig.model_validate(tables)
    except ValidationError as error:
        raise as_one_error([*found, *_field_problems(error, merged)]) from None
    found += [_problem(rule.key, merged.get(rule.key), rule.what, rule.fix) for rule in broken_rules(config)]
    if found:
        raise as_one_error(found)
    return config


def _refuse(key: str, entry: SettingEntry) -> ConfigProblem | None:
    """Returns why an entry cannot be passed to pydantic, None if it can."""
    if key in (*sections(), REWARDS):
        example = f"{key}.boxed_answer" if key == REWARDS else sections()[key][0]
        return _problem(key, entry, "is a section, not a key", f"Set a key of it, such as {example}")
    if not is_known(key):
        return _problem(key, entry, "there is no such key", fix_for_unknown(key))
    if is_hostile(key) or is_hostile(entry.value):
        is_typed = entry.origin.startswith("--")  # in a file a path's \\t or \\n may have become one
        fix = "Take them out." if is_typed else f"Take them out. {_WINDOWS_PATH}"
        return _problem(key, entry, "holds control characters, broken Unicode or a gigantic number", fix)
    return None


def _field_problems(error: ValidationError, merged: Mapping[str, SettingEntry]) -> Iterator[ConfigProblem]:
    for detail in error.errors(include_url=False, include_context=False):
        key = ".".join(map(str, detail["loc"][:2]))
        known = find_key(key)
        fix = f"It takes {known.takes}" if known else "It takes a number"
        if key.startswith(f"{REWARDS}."):
            fix = f"It takes the reward's weight, such as {REWARDS}.boxed_answer=1.0"
        if detail["type"] == "string_type":
            fix = f"Write it in quotes: '{key}=\"...\"'"
        what = detail["msg"].replace("Input should be", "must be").partition(", unable to")[0]
        if detail["type"] == "value_error":  # of a validator of ours: "what; fix"
            what, _, fix = what.removeprefix("Value error, ").partition("; ")
        yield _problem(key, merged[key], what, fix)


def _problem(key: str, entry: SettingEntry | None, what: str, fix: str) -> ConfigProblem:
    given = f" = {shown(entry.value)} (from {entry.origin})" if entry else ""
    return ConfigProblem(f"{shown_key(key)}{given}: {what}", fix[:1].upper() + fix[1:])
