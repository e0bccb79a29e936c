"""From layers to one `RunConfig`: defaults < preset < config files < `--set` < named flags.

Layers hold raw values by dotted key; the last one to name a key wins, and its name stays with
the value as its origin. The result is validated once, and all mistakes are told together.
Whether a named reward or task exists is checked where rewards and tasks are known.
"""

import re
import reprlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lowmem_rl.config.keys import REWARDS, find_key, fix_for_unknown, is_known, sections
from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, near_names
from lowmem_rl.models.hardware import CARDS

TASK = "task.name"
TASK_DATA = ("task.levels", "task.path", "task.hub", "task.subset", "task.columns", "task.splits")
"""Keys that mean something only together with the task."""


class ConfigProblem(NamedTuple):
    """What is wrong, and the fix."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class ConfigLayer:
    """Raw values by dotted key, from one place; `problems` are what could not even be read."""

    origin: str
    values: Mapping[str, object]
    replaces_rewards: bool = False
    """Drops the rewards below instead of merging with them by name."""
    problems: tuple[ConfigProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A run's configuration and where each value of it came from."""

    config: RunConfig
    origins: Mapping[str, str]
    """By dotted key: "default", "preset NAME", a file, "--set" or a flag."""
    preset: str
    """The preset's name; of a config file that is a preset itself, the file's."""
    card: str
    """The card that preset is made for."""

    @property
    def named_origins(self) -> dict[str, str]:
        """Where each name came from that may stand for code: the tasks' and the rewards'."""
        rewards = {name: self.origins[f"{REWARDS}.{name}"] for name in self.config.rewards}
        further = dict.fromkeys(self.config.eval.tasks, self.origins["eval.tasks"])
        return {self.config.task.name: self.origins["task.name"]} | further | rewards


class SettingEntry(NamedTuple):
    """A raw value and its origin."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """What a run starts from: a preset, or a config file with a `[preset]` table."""

    name: str
    card: str
    layers: tuple[ConfigLayer, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One `--config` file. With a `[preset]` table (a copied preset) it can be what a run starts from."""

    layer: ConfigLayer
    base: BaseConfig | None


def resolve(
    *,
    preset: str | None = None,
    fallback: str = "tiny-cpu",
    config_files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    flags: Sequence[ConfigLayer] = (),
) -> ResolvedConfig:
    """Returns the configuration that all layers make together.

    Without `preset`, a config file with a `[preset]` table (a copied preset) is the start, else
    the preset `fallback`. Raises `ConfigError` with every mistake at once, `UnknownName` for the preset.
    """
    files = [read_config_file(path) for path in config_files]
    base = _base(preset, fallback, files)
    layers = [*base.layers, *(file.layer for file in files), read_assignments("--set", settings), *flags]
    merged = merge([defaults(), *layers])
    config = validate(merged, [mistake for layer in layers for mistake in layer.problems])
    origins = {key: merged[key].origin for key in flatten(config.model_dump())}
    return ResolvedConfig(config, origins, base.name, base.card)


def named_layers(
    *,
    preset: str | None = None,
    config_files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    flags: Sequence[ConfigLayer] = (),
) -> list[ConfigLayer]:
    """Returns the layers that were named, and no others: what is asked of a configuration that is there already."""
    files = [read_config_file(path) for path in config_files]
    base = _base(preset, "", files).layers if preset is not None else ()
    return [*base, *(file.layer for file in files), read_assignments("--set", settings), *flags]


def defaults() -> ConfigLayer:
    """Returns the lowest layer: every key with its default."""
    return ConfigLayer("default", flatten(RunConfig().model_dump()))


def flatten(tables: Mapping[str, object]) -> dict[str, object]:
    """Returns values by dotted key. Tables are one level deep; deeper ones are left for validation to refuse."""
    flat: dict[str, object] = {}
    for name, value in tables.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def merge(layers: Iterable[ConfigLayer]) -> dict[str, SettingEntry]:
    """Returns the last value of each key with its origin; rewards merge by name unless a layer replaces them."""
    merged: dict[str, SettingEntry] = {}
    for layer in _with_fresh_task_data(layers):
        if layer.replaces_rewards:
            merged = {key: entry for key, entry in merged.items() if not key.startswith(f"{REWARDS}.")}
        merged |= {key: SettingEntry(value, layer.origin) for key, value in layer.values.items()}
    return merged


def _with_fresh_task_data(layers: Iterable[ConfigLayer]) -> Iterator[ConfigLayer]:
    """Yields the layers; before one that names another task, the defaults of what belonged to the old task's data.

    That is what was set up to the layer that named the old task. What a layer above it set without
    naming a task was not meant for the old one, and stays: `--set task.path=DATA --task gsm8k`.
    """
    task, later = None, set[str]()
    for layer in layers:
        if (named := layer.values.get(TASK)) is None:
            later |= layer.values.keys()
        else:
            if task not in (None, named):
                default = defaults()
                yield ConfigLayer(default.origin, {key: default.values[key] for key in TASK_DATA if key not in later})
            task, later = named, set()
        yield layer


def read_config_file(path: Path) -> ConfigFile:
    """Reads a TOML file. Raises `ConfigError` if it cannot be read, is not UTF-8, not TOML, or for an unknown card."""
    # A file named "--set" must not pass for the command line, whose word is enough to run code.
    shown = _shown_key(f"./{path}" if str(path).startswith("-") else str(path))
    try:
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from error
    except RecursionError as error:
        raise ConfigError(f"{shown} nests too deeply.", hint="Sections are one level deep: [grpo].") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {shown}: {error.strerror}.", hint="--config takes a TOML file.") from error
    except ValueError as error:  # TOMLDecodeError names line and column; a NUL in the path arrives here too
        raise ConfigError(
            f"{shown}: {error}.", hint='A line of TOML is `key = value`; text stands in "quotes".'
        ) from error
    base = None
    if isinstance(tables.get("preset"), dict):
        base = BaseConfig(path.stem, _known_card(tables.pop("preset").get("card"), shown))
    return ConfigFile(ConfigLayer(shown, flatten(tables)), base)


def _known_card(card: object, file: str) -> str:
    known = ["cpu", *CARDS]
    if not isinstance(card, str) or card not in known:
        found = "has no card" if card is None else f"names an unknown card, {_shown(card)}"
        raise ConfigError(f"{file}: [preset] {found}.", hint=near_names(str(card or ""), known))
    return card


def read_assignments(
    origin: str, texts: Iterable[str], *, prefix: str = "", replaces_rewards: bool = False
) -> ConfigLayer:
    """Returns the layer of a repeated `KEY=VALUE` option; `prefix` stands before each key."""
    values: dict[str, object] = {}
    mistakes: list[ConfigProblem] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            mistakes.append(ConfigProblem(f"{origin} {_shown(text)} is not KEY=VALUE", f"Write {origin} KEY=VALUE."))
            continue
        parsed = flatten({prefix + key.strip(): parse_value(value)})
        mistakes += [
            ConfigProblem(f"{_shown_key(name)} is given twice by {origin}", "Give it once.")
            for name in parsed
            if name in values
        ]
        values |= parsed
    return ConfigLayer(origin, values, replaces_rewards, tuple(mistakes))


def parse_value(text: str) -> object:
    """Returns `text` read as a TOML value, or as it stands where it is none: `8`, `[1, 2]`, `gsm8k`."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text could carry further keys.
    return parsed["value"] if parsed.keys() == {"value"} else text


def validate(merged: Mapping[str, SettingEntry], mistakes: Sequence[ConfigProblem] = ()) -> RunConfig:
    """Returns the configuration. Raises one `ConfigError` with `mistakes` and all that is wrong in `merged`."""
    refused = {key: mistake for key, entry in merged.items() if (mistake := _refuse(key, entry))}
    usable = {key: entry for key, entry in merged.items() if key not in refused}
    found = [*mistakes, *refused.values()]
    try:
        config = RunConfig.model_validate(_nest(usable))
    except ValidationError as error:
        raise as_one_error([*found, *_field_mistakes(error, merged)]) from None
    found += _rule_mistakes(config, merged)
    if found:
        raise as_one_error(found)
    return config


def as_one_error(mistakes: Sequence[ConfigProblem]) -> ConfigError:
    """Returns one error: a single mistake with its fix as the hint, several as a list."""
    if len(mistakes) == 1:
        return ConfigError(_sentence(mistakes[0].what), hint=_sentence(mistakes[0].fix))
    lines = [f"  {_sentence(what)} {_sentence(fix)}" for what, fix in mistakes]
    return ConfigError(
        "\n".join([f"{len(mistakes)} mistakes in the configuration:", *lines]),
        hint="`lowmem-rl presets explain KEY` tells what a key takes.",
    )


def _base(preset: str | None, fallback: str, files: Sequence[ConfigFile]) -> BaseConfig:
    own = [file.base for file in files if file.base is not None]
    if own and preset is None:
        return own[0]
    found = load_preset(fallback if preset is None else preset)
    return BaseConfig(found.name, found.card, (ConfigLayer(f"preset {found.name}", flatten(found.values)),))


def _nest(entries: Mapping[str, SettingEntry]) -> dict[str, object]:
    """Returns tables of values, as pydantic takes them."""
    tables: dict[str, Any] = {}
    for key, entry in entries.items():
        section, dot, name = key.partition(".")
        if dot:
            tables.setdefault(section, {})[name] = entry.value
        else:
            tables[section] = entry.value
    return tables


def _refuse(key: str, entry: SettingEntry) -> ConfigProblem | None:
    """Returns why a value may not even be validated, if so."""
    if key in (*sections(), REWARDS):
        example = f"{key}.boxed_answer" if key == REWARDS else sections()[key][0]
        return _mistake(key, entry, "is a section, not a key", f"Set a key of it, such as {example}")
    if not is_known(key):
        return _mistake(key, entry, "there is no such key", fix_for_unknown(key))
    if _is_hostile(key) or _is_hostile(entry.value):
        return _mistake(key, entry, "holds control characters, broken Unicode or a gigantic number", "Take them out.")
    return None


# No file, model or task is named with these, and C libraries cut a string at NUL.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def _is_hostile(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, int) and abs(item) >= 2**63 for item in items) or any(
        isinstance(item, str) and _CONTROL.search(item) for item in items
    )


def _field_mistakes(error: ValidationError, merged: Mapping[str, SettingEntry]) -> Iterator[ConfigProblem]:
    for detail in error.errors(include_url=False, include_context=False):
        key = ".".join(map(str, detail["loc"][:2]))
        what = detail["msg"].replace("Input should be", "must be").partition(", unable to")[0]
        yield _mistake(key, merged[key], what, _cure_for_value(key, detail["type"]))


def _cure_for_value(key: str, problem: str) -> str:
    if problem == "string_type":
        return f"Write it in quotes: '{key}=\"...\"'"
    known = find_key(key)
    return f"It takes {known.takes}" if known and not key.startswith(f"{REWARDS}.") else "It takes a number"


def _rule_mistakes(config: RunConfig, merged: Mapping[str, SettingEntry]) -> Iterator[ConfigProblem]:
    for rule in broken_rules(config):
        if rule.key in merged:
            yield _mistake(rule.key, merged[rule.key], rule.what, _capital(rule.fix))
        else:
            yield ConfigProblem(f"{rule.key}: {rule.what}", _capital(rule.fix))


def _mistake(key: str, entry: SettingEntry, what: str, fix: str) -> ConfigProblem:
    return ConfigProblem(f"{_shown_key(key)} = {_shown(entry.value)} (from {entry.origin}): {what}", fix)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(value: object) -> str:
    """Returns a value on one line, cut where it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a gigantic number"


def _shown_key(key: str) -> str:
    """Returns a key or path as it stands where it is short and printable."""
    return key if len(key) <= 80 and not _CONTROL.search(key) else _shown(key)
