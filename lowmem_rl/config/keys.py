"""The keys of `RunConfig` as a user writes them, `section.name`: documentation, range, near names.

All of it is read from the fields themselves, so that the explanation matches the check.
"""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from inspect import cleandoc, getsource
from itertools import pairwise
from typing import Any

from lowmem_rl.config import run_config
from lowmem_rl.config.run_config import RunConfig, Section
from lowmem_rl.config.trl_names import OPTIONS as OPTIONS
from lowmem_rl.config.trl_names import OURS, REFUSED

REWARDS = "rewards"
"""The one table whose keys are names that the user chooses."""

_NOUNS = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True, slots=True)
class SettingKey:
    """One setting: what it means and what it takes."""

    name: str
    doc: str
    takes: str
    default: object


@cache
def known_keys() -> dict[str, SettingKey]:
    """Returns every key by its dotted name, in the order of the sections; `rewards` is its whole table."""
    schema, docs = RunConfig.model_json_schema(), _docs()
    keys: dict[str, SettingKey] = {}
    for name, node in schema["properties"].items():
        section = schema["$defs"].get(node.get("$ref", "").rpartition("/")[2])
        fields = {f"{name}.{field}": part for field, part in section["properties"].items()} if section else {name: node}
        kind = node.get("$ref", "RunConfig").rpartition("/")[2]
        for field, part in fields.items():
            doc = docs.get((kind if section else "RunConfig", field.rpartition(".")[2]), "")
            keys[field] = SettingKey(field, doc, _takes(part), part.get("default"))
    return keys


def _docs() -> dict[tuple[str, str], str]:
    """Returns the string under each field, by class and field, read from the source: Pydantic would do so for every
    command, at the price of a tenth of its time."""
    kinds = [node for node in ast.parse(getsource(run_config)).body if isinstance(node, ast.ClassDef)]
    return {
        (kind.name, field.target.id): cleandoc(text.value.value)
        for kind in kinds
        for field, text in pairwise(kind.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


@cache
def sections() -> dict[str, list[str]]:
    """Returns the dotted keys of each section, without building the schema: every command checks names, few explain."""
    kinds = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return {
        name: [f"{name}.{key}" for key in kind.model_fields]
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def is_known(name: str) -> bool:
    """Returns whether `name` is a key; under `rewards` any name is."""
    section, dot, _ = name.partition(".")
    if dot:
        return section == REWARDS or name in sections().get(section, ())
    return name != REWARDS and name in RunConfig.model_fields and name not in sections()


def find_key(name: str) -> SettingKey | None:
    """Returns the key of that name; each reward shares the key `rewards`."""
    return known_keys().get(REWARDS if name.startswith(f"{REWARDS}.") else name)


def fix_for_unknown(name: str) -> str:
    """Returns what a user who wrote `name` may have meant: near keys, else the keys of its section."""
    if refusal := REFUSED.get(_last_part(name)):
        return refusal
    if option := OPTIONS.get(_last_part(name)):
        return f"Did you mean {option}?"
    if near := near_keys(name):
        return f"Did you mean {' or '.join(near)}?"
    section = sections().get(name.partition(".")[0])
    return f"It has {', '.join(section)}." if section else "`lowmem-rl presets explain` lists every key."


def near_keys(name: str) -> list[str]:
    """Returns up to three keys: namesakes, else similar ones."""
    if found := namesakes(name) or get_close_matches(name, known_keys(), n=3, cutoff=0.8):
        return found
    near = get_close_matches(_last_part(name), {_last_part(key) for key in known_keys()}, n=1, cutoff=0.75)
    return [key for key in known_keys() if _last_part(key) in near][:3]


def namesakes(name: str) -> list[str]:
    """Returns up to three keys with the same last part (the right key in the wrong section), else those that TRL or
    another library calls so."""
    last = _last_part(name)
    same = [key for key in known_keys() if _last_part(key) == last]
    return [*(same or OURS.get(last, ()))][:3]


def _last_part(name: str) -> str:
    return name.rpartition(".")[2].lower().replace("-", "_")


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
        values = node["additionalProperties"]
        return "a table of NAME = " + ("WEIGHT" if values["type"] == "number" else _takes(values))
    if node["type"] == "array":
        return f"a list, each {_takes(node['items'])}"
    bounds = [f"{word} {node[bound]:.16g}" for bound, word in _BOUNDS.items() if bound in node]
    return ", ".join([_NOUNS[node["type"]], *bounds])
