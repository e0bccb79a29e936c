"""Patterns of module names, as PEFT's `rank_pattern` and `alpha_pattern` have them: which modules each one names.

PEFT takes any regular expression; one from a file could search for hours. These repeat nothing: the end of a name, with
at most one list of alternatives: `q_proj`, `mlp.down_proj`, `layers.3.mlp.down_proj`, `layers.(26|27).mlp.up_proj`.
"""

import re
from functools import lru_cache

from lowmem_rl.errors import ConfigError

_FORM = re.compile(r"\^?(?:\w|\\?\.)*(?:\(\w+(?:\|\w+)*\)(?:\w|\\?\.)*)?", re.ASCII)
_LONGEST, _MOST = 200, 256
_MLP = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")


def check_patterns(table: dict[str, int]) -> dict[str, int]:
    """Returns a table as it is. Raises `ValueError` if it is too long, or if one of its keys has another form."""
    if len(table) > _MOST:
        raise ValueError(f"has {len(table)} patterns; name at most {_MOST}")
    for pattern in table:
        if not pattern or len(pattern) > _LONGEST or not _FORM.fullmatch(pattern):
            raise ValueError(
                "has a pattern of another form; write names, with one list of alternatives at most: q_proj, "
                "mlp.down_proj, layers.3.mlp.down_proj, layers.(26|27).mlp.up_proj"
            )
    return table


def module_name(layer: int, target: str) -> str:
    """Returns the name of a linear layer in a decoder layer of a causal model of transformers."""
    return f"model.layers.{layer}.{'mlp' if target in _MLP else 'self_attn'}.{target}"


@lru_cache(maxsize=64)  # the planner asks for each of many plans
def patterns_of(key: str, patterns: tuple[str, ...], modules: tuple[str, ...]) -> dict[str, str]:
    """Returns of each module that a pattern names the first such pattern, as `get_pattern_key` of PEFT does.

    Raises `ConfigError` for a pattern that names no module, or none that an earlier pattern leaves.
    """
    forms = {pattern: re.compile(rf"(?:.*\.)?(?:{pattern})") for pattern in patterns}
    named = {name: next((p for p, form in forms.items() if form.fullmatch(name)), "") for name in modules}
    if unused := next((pattern for pattern in patterns if pattern not in named.values()), None):
        raise ConfigError(
            f"{key}: {unused!r} names no module with an adapter, or none that an earlier pattern leaves.",
            hint="A pattern is a module's name or the end of it: q_proj, layers.3.mlp.down_proj. Their order decides.",
        )
    return {name: pattern for name, pattern in named.items() if pattern}
