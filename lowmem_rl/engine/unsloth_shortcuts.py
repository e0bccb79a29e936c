"""The two shortcuts of Unsloth's log-probs, and what it has noted about them on the model.

Its Prefix Grouper reads a group's prompt once; its sequence packing concatenates rows of any length. Each is checked
against the ordinary forward for a new shape, and silently given up if that check fails or memory runs out (unsloth
2026.10.9, models/rl_replacements.py): for a layout, from a length on, or for the rest of the run. The result is as
right without them; it takes more memory and time, and in bfloat16 it rounds differently. So a resumed run has to start
with the same notes.
"""

from collections.abc import Mapping
from typing import Any

import torch

_PARTS = {"grad": "the update", "nograd": "log-probs"}
"""Unsloth's name of a forward -> ours."""
_VERIFIED, _UNSAFE, _DISABLED = "prefix_grouper_{}_verified", "prefix_grouper_{}_unsafe", "prefix_grouper_{}_disabled"
"""Layouts that were checked, with their lengths; those given up; whether all are. A layout is the number of groups in a
micro-batch and the rows of each."""
_PACKS, _PADS_FROM = "seq_packing_{}_ok", "seq_packing_{}_unsafe_T"
"""Whether rows are packed, and the number of tokens from which on they are not."""
_LENGTHS = ("seq_packing_{}_verified_T", "seq_packing_{}_verified_seg")
NAMES = (
    *(name.format(part) for part in _PARTS for name in (_VERIFIED, _UNSAFE, _PACKS, _PADS_FROM, *_LENGTHS)),
    _DISABLED.format("nograd"),
)


def shortcut_notes(model: object) -> dict[str, Any]:
    """Returns Unsloth's notes on the model, as plain JSON data."""
    found = {name: getattr(model, f"_unsloth_{name}", None) for name in NAMES}
    return {name: _to_json(value) for name, value in found.items() if value is not None}


def restore_shortcut_notes(model: object, notes: Mapping[str, Any]) -> None:
    """Restores on the model what `shortcut_notes` returned."""
    for name in NAMES:
        if name in notes:
            setattr(model, f"_unsloth_{name}", _from_json(name, notes[name]))


def failed_allocations() -> int:
    """Returns how many allocations have failed on the card in this process, caught or not; it waits for nothing."""
    return int(torch.cuda.memory_stats().get("num_ooms", 0)) if torch.cuda.is_available() else 0


def given_up(model: object) -> frozenset[str]:
    """Returns, in words, which shortcuts Unsloth no longer takes."""
    found = set()
    for part, where in _PARTS.items():
        layouts = _note(model, _UNSAFE, part) or ()
        found |= {f"prompts are no longer shared in {where}, {groups} groups together" for groups, _ in layouts}
        if _note(model, _DISABLED, part):
            found.add(f"prompts are no longer shared in {where}")
        if _note(model, _PACKS, part) is False:
            found.add(f"rows are padded in {where}")
        if (tokens := _note(model, _PADS_FROM, part)) is not None:
            found.add(f"rows are padded in {where} from {tokens} tokens on")
    return frozenset(found)


def unshared_groups(model: object) -> frozenset[int]:
    """Returns the numbers of groups whose prompts the update no longer shares if they are in one micro-batch."""
    return frozenset(groups for groups, _ in _note(model, _UNSAFE, "grad") or ())


def _note(model: object, name: str, part: str) -> Any:
    return getattr(model, f"_unsloth_{name.format(part)}", None)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted([groups, list(rows), list(lengths)] for (groups, rows), lengths in value.items())
    return sorted([groups, list(rows)] for groups, rows in value) if isinstance(value, set) else value


def _from_json(name: str, value: Any) -> Any:
    if name.endswith("_verified"):
        return {(groups, tuple(rows)): tuple(lengths) for groups, rows, lengths in value}
    return {(groups, tuple(rows)) for groups, rows in value} if name.endswith("_unsafe") else value
