"""Overrides in Hydra's grammar: `key=value` for any value, so that what is in a path or a name stays text.

Source:
    https://hydra.cc/docs/advanced/override_grammar/basic/: in quotes only the quote itself is escaped, with the
    backslashes before it.
"""

import re
from collections.abc import Mapping, Sequence

from lowmem_rl.errors import ConfigError

Value = str | int | float | bool | None | Sequence["Value"]


def override(key: str, value: Value) -> str:
    """Returns one override. `key` is a key of the schema, not a user's text.

    Raises `ConfigError` for a text with `${`: OmegaConf would read it as an interpolation, at the latest where another
    node of verl's refers to it.
    """
    if isinstance(value, str) and "${" in value:
        raise ConfigError(f"{key} = {value!r}: verl reads ${{ as the start of a reference.", hint="Rename it.")
    return f"{key}={_text(value)}"


def overrides(values: Mapping[str, Value]) -> list[str]:
    """Returns one override for each value."""
    return [override(key, value) for key, value in values.items()]


def _text(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    return f"[{','.join(map(_text, value))}]"


def _quoted(text: str) -> str:
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
