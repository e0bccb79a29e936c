"""Values as TOML text, as a user may write them after `--set KEY=`."""

import json
import re


def toml_value(value: object) -> str:
    """Returns a value in TOML, where text, numbers, booleans and lists are written as in JSON."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def toml_key(name: str) -> str:
    """Returns a key, in quotes if it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
