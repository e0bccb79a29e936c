"""What is wrong with a configuration, and how it is printed: each problem on one line, even for a hostile value."""

import re
import reprlib
from collections.abc import Sequence
from typing import NamedTuple

from lowmem_rl.errors import ConfigError

# No file, model or task has these in its name, and C libraries cut a string at NUL.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80  # Repr takes them as arguments since Python 3.12


class ConfigProblem(NamedTuple):
    """What is wrong, and the fix."""

    what: str
    fix: str


def as_one_error(problems: Sequence[ConfigProblem]) -> ConfigError:
    """Returns one error: a single problem with its fix as the hint, several as a list."""
    if len(problems) == 1:
        return ConfigError(_sentence(problems[0].what), hint=_sentence(problems[0].fix))
    lines = [f"  {_sentence(what)} {_sentence(fix)}" for what, fix in problems]
    return ConfigError(
        "\n".join([f"{len(problems)} mistakes in the configuration:", *lines]),
        hint="`lowmem-rl presets explain KEY` shows what a key takes.",
    )


def is_hostile(value: object) -> bool:
    """Returns whether a raw value has control characters, lone surrogates or an integer beyond 64 bits."""
    items = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]
    return any(isinstance(item, int) and abs(item) >= 2**63 for item in items) or any(
        isinstance(item, str) and _CONTROL.search(item) for item in items
    )


def shown(value: object) -> str:
    """Returns a value on one line, cut if it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a gigantic number"


def shown_key(key: str) -> str:
    """Returns a key or path as it is if it is short and printable, else as `shown` does."""
    return key if len(key) <= 80 and not _CONTROL.search(key) else shown(key)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
