"""The keys of `RunConfig` as a user writes them, `section.name`: documentation, range, near names.

Everything here is read from the fields themselves, so that what is explained is what is checked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from lowmem_rl.config.run_config import RunConfig, Section

REWARDS = "rewards"
"""The one table whose keys are names of the user's choice."""

NOUNS = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True, slots=True)
class SettingKey:
    """One setting: what it means and what it takes."""

    name: str
    doc: str
    takes: str
    default: object


@cache
def known_keys() -> dict[str, SettingKey]:
    """Returns every key by its dotted name, in the order of the sections; `rewards` stands for its table."""
    schema = RunConfig.model_json_schema()
    keys: dict[str, SettingKey] = {}
    for name, node in schema["properties"].items():
        section = schema["$defs"].get(node.get("$ref", "").rpartition("/")[2])
        fields = {f"{name}.{field}": part for field, part in section["properties"].items()} if section else {name: node}
        keys |= {field: _key(field, part) for field, part in fields.items()}
    return keys


@cache
def sections() -> dict[str, list[str]]:
    """Returns the dotted keys of each section; no schema is made, for every command checks names and few explain."""
    kinds = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return {
        name: [f"{name}.{key}" for key in kind.model_fields]
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def is_known(name: str) -> bool:
    """True if a value may stand under `name`; any name may stand under `rewards`."""
    section, dot, _ = name.partition(".")
    if dot:
        return section == REWARDS or name in sections().get(section, ())
    return name != REWARDS and name in RunConfig.model_fields and name not in sections()


def find_key(name: str) -> SettingKey | None:
    """Returns the key of that name; each reward shares the key `rewards`."""
    return known_keys().get(REWARDS if name.startswith(f"{REWARDS}.") else name)


def fix_for_unknown(name: str) -> str:
    """Returns what a user who wrote `name` may have meant: near keys, else the keys of its section."""
    near = near_keys(name)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    section = sections().get(name.partition(".")[0])
    return f"It has {', '.join(section)}." if section else "`lowmem-rl presets explain` lists every key."


def near_keys(name: str) -> list[str]:
    """Returns up to three keys: of the same last part (the right key in the wrong section), then alike."""
    last = _last_part(name)
    same = [key for key in known_keys() if _last_part(key) == last]
    return same[:3] or get_close_matches(name, known_keys(), n=3, cutoff=0.8) or _keys_with_last_part_like(last)


def _keys_with_last_part_like(last: str) -> list[str]:
    near = get_close_matches(last, {_last_part(key) for key in known_keys()}, n=1, cutoff=0.75)
    return [key for key in known_keys() if _last_part(key) in near][:3]


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _key(name: str, node: Mapping[str, Any]) -> SettingKey:
    return SettingKey(name, node.get("description", ""), _takes(node), node.get("default"))


def _takes(node: Mapping[str, Any]) -> str:
    """Returns a JSON schema's type and range in words."""
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "const" in node:
        return json.dumps(node["const"])
    if "anyOf" in node:
        values = [part for part in node["anyOf"] if part.get("type") != "null"]
        unset = "; may be unset" if len(values) < len(node["anyOf"]) else ""
        return " or ".join(map(_takes, values)) + unset
    if node["type"] == "object":
        return "a table of NAME = WEIGHT"
    if node["type"] == "array":
        return f"a list, each {_takes(node['items'])}"
    bounds = [f"{word} {_plain(node[bound])}" for bound, word in BOUNDS.items() if bound in node]
    return ", ".join([NOUNS[node["type"]], *bounds])


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
