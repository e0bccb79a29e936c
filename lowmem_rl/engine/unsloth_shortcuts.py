"""The two shortcuts of Unsloth's log-probs, and what it has noted of them on the model.

Its Prefix Grouper reads a group's prompt once, its sequence packing puts rows of any length side by side. Each is
checked against the ordinary forward when a shape is new, and each is given up without a word where that fails or memory
runs out (unsloth 2026.10.9, models/rl_replacements.py): for a layout, from a length on, or for the rest of the run. The
result is as right without them; it takes more memory and time, and in bfloat16 it rounds differently. So a run that
goes on has to begin with the same notes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

PARTS = {"grad": "the update", "nograd": "log-probs"}
"""Unsloth's name of a forward -> ours."""
VERIFIED, UNSAFE, DISABLED = "prefix_grouper_{}_verified", "prefix_grouper_{}_unsafe", "prefix_grouper_{}_disabled"
"""Layouts that were checked, with their lengths; those given up; whether all are. A layout is the number of groups in a
micro-batch and the rows of each."""
PACKS, PADS_FROM = "seq_packing_{}_ok", "seq_packing_{}_unsafe_T"
"""Whether rows are packed, and the tokens from which on they are not."""
LENGTHS = ("seq_packing_{}_verified_T", "seq_packing_{}_verified_seg")
NAMES = (
    *(name.format(part) for part in PARTS for name in (VERIFIED, UNSAFE, PACKS, PADS_FROM, *LENGTHS)),
    DISABLED.format("nograd"),
)


def shortcut_notes(model: Any) -> dict[str, Any]:
    """Returns what is noted on the model, as plain JSON data."""
    found = {name: getattr(model, f"_unsloth_{name}", None) for name in NAMES}
    return {name: _to_json(value) for name, value in found.items() if value is not None}


def restore_shortcut_notes(model: Any, notes: Mapping[str, Any]) -> None:
    """Puts back what `shortcut_notes` returned."""
    for name in NAMES:
        if name in notes:
            setattr(model, f"_unsloth_{name}", _from_json(name, notes[name]))


def failed_allocations() -> int:
    """Returns how many allocations have failed on the card in this process, caught or not; it waits for nothing."""
    return int(torch.cuda.memory_stats().get("num_ooms", 0)) if torch.cuda.is_available() else 0


def given_up(model: Any) -> frozenset[str]:
    """Returns, in words, what Unsloth no longer does."""
    return frozenset(said for part, where in PARTS.items() for said in _given_up(model, part, where))


def unshared_groups(model: Any) -> frozenset[int]:
    """Returns the numbers of groups whose prompts the update no longer shares when they are learnt from together."""
    return frozenset(layout[0] for layout in _of(model, UNSAFE, "grad") or ())


def _given_up(model: Any, part: str, where: str) -> Iterator[str]:
    for layout in _of(model, UNSAFE, part) or ():
        yield f"prompts are no longer shared in {where}, {layout[0]} groups together"
    if _of(model, DISABLED, part):
        yield f"prompts are no longer shared in {where}"
    if _of(model, PACKS, part) is False:
        yield f"rows are padded in {where}"
    if (tokens := _of(model, PADS_FROM, part)) is not None:
        yield f"rows are padded in {where} from {tokens} tokens on"


def _of(model: Any, name: str, part: str) -> Any:
    return getattr(model, f"_unsloth_{name.format(part)}", None)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted([groups, list(rows), list(lengths)] for (groups, rows), lengths in value.items())
    return sorted([groups, list(rows)] for groups, rows in value) if isinstance(value, set) else value


def _from_json(name: str, value: Any) -> Any:
    if name.endswith("_verified"):
        return {(groups, tuple(rows)): tuple(lengths) for groups, rows, lengths in value}
    return {(groups, tuple(rows)) for groups, rows in value} if name.endswith("_unsafe") else value
