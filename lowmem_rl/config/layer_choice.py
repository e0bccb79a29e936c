"""Which decoder layers a setting names: `all`, `none`, `first:K`, `last:K`, `middle:K`, `every:N`, or `0,4,9-12`.

Layers count from 0, next to the embeddings.
"""

import re
from collections.abc import Sequence

from lowmem_rl.errors import ConfigError

_FORMS = "all, none, first:K, last:K, middle:K, every:N, or numbers as 0,4,9-12"
_LONGEST = 1000
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_KINDS = re.compile(r"(first|last|middle|every):([0-9]{1,4})")


def check_form(text: str) -> str:
    """Returns a choice as it is. Raises `ValueError` if it has none of the forms, whatever the model's depth."""
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    counted = _KINDS.fullmatch(text)
    if text not in ("all", "none") and not (counted and int(counted[2])) and not _ranges(text):
        raise ValueError(f"names no layers; it takes {_FORMS}")
    return text


def layers_of(text: str, depth: int) -> tuple[int, ...]:
    """Returns the layers, in order, that a choice names of a model with `depth` layers.

    Raises `ConfigError` if the model has too few.
    """
    if text in ("all", "none"):
        return tuple(range(depth)) if text == "all" else ()
    if counted := _KINDS.fullmatch(text):
        kind, count = counted[1], int(counted[2])
        chosen: Sequence[int] = {
            "first": range(count),
            "last": range(depth - count, depth),
            "middle": range((depth - count) // 2, (depth - count) // 2 + count),
            "every": range(0, depth, count),
        }[kind]
        is_there = count <= depth
    else:
        chosen = layers_in(text)
        is_there = chosen[-1] < depth
    if not is_there:
        what = f"trainable.layers = {text!r}, but the model has {depth} layers, 0 to {depth - 1}."
        raise ConfigError(what, hint="Name layers that it has, such as last:1.")
    return tuple(chosen)


def check_extra(extra: Sequence[str], *, is_tied: bool) -> None:
    """Raises `ConfigError` for a head that is the embeddings' matrix: one of its own would make another model."""
    if is_tied and "lm_head" in extra:
        what = "trainable.extra: the model has no lm_head of its own, it is the matrix of embed_tokens."
        raise ConfigError(what, hint='Set trainable.extra="embed_tokens", which trains both.')


def text_of(layers: tuple[int, ...]) -> str:
    """Returns the shortest list that names these layers: `0,4,9-12`; `none` for none."""
    parts: list[str] = []
    for layer in layers:
        first, dash, last = parts[-1].partition("-") if parts else ("", "", "")
        if parts and int(last or first) == layer - 1:
            parts[-1] = f"{first}-{layer}"
        else:
            parts.append(str(layer))
    return ",".join(parts) or "none"


def layers_in(text: str) -> tuple[int, ...]:
    """Returns the layers that a list names which `text_of` has written; none for another text."""
    return tuple(sorted({layer for first, last in _ranges(text) for layer in range(first, last + 1)}))


def _ranges(text: str) -> list[tuple[int, int]]:
    """Returns the first and last number of each part of a list, nothing for another text."""
    found = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    pairs = [(int(part[1]), int(part[2] or part[1])) for part in found if part]
    return pairs if len(pairs) == len(found) and all(first <= last for first, last in pairs) else []
