"""Kept states for a forward pass that orders its tokens itself: each token's are found by the ids before it.

Unsloth's kernels, on a GPU, read a micro-batch as one packed row, as one with shared prompts (Prefix Grouper), as
padded rows, or row by row to compare these (unsloth 2026.10.9, models/rl_replacements.py, and unsloth_zoo's
rl_replacements.py). What enters a frozen layer at a token depends on nothing but the ids up to it: whatever the layout,
rows with equal ids have equal states. Positions show where a row begins, or continues from the prompt before it.

A forward that reads other ids than were sampled, for example without a padding id amid a completion, finds nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lowmem_rl.engine.kept_states import KeptStates


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row whose states are kept: its number among them, the length of its prompt, the ids of its tokens."""

    number: int
    prompt: int
    ids: list[int]


@dataclass(frozen=True, slots=True)
class _Segment:
    """Neighbouring tokens of one row: columns `start` to `end`, at which are the row's tokens from `first` on."""

    start: int
    end: int
    first: int
    ids: list[int]
    """Of the row, from its first token to the last one here; empty if its beginning is not known."""


class StatesByIds:
    """The states of some rows, by ids."""

    def __init__(self, kept: KeptStates, rows: Sequence[KeptRow], pad: int) -> None:
        self.kept, self.rows, self.pad = kept, rows, pad

    @classmethod
    def of_batch(cls, kept: KeptStates, numbers: Tensor, ids: Tensor, prompt_mask: Tensor, pad: int) -> "StatesByIds":
        """Returns those of a batch: `numbers` (R,) of its rows, `ids` (R, P + C), `prompt_mask` (R, P)."""
        width = prompt_mask.shape[1]
        padding = (width - prompt_mask.sum(1)).to(ids)[:, None]
        found = torch.cat((padding, ids), dim=1).tolist()  # one copy, for which the host waits
        rows = [
            KeptRow(number, width - row[0], row[1 + row[0] :])
            for number, row in zip(numbers.tolist(), found, strict=True)
        ]
        return cls(kept, rows, pad)

    def of_forward(self, ids: Tensor, positions: Tensor | None) -> Tensor | None:
        """Returns the states of a forward's tokens, zeros for padding; None if there are not all of them.

        `ids` are (streams, T), as are `positions`, those in each token's row; without them each stream is a row.
        """
        read = (ids if positions is None else torch.stack((ids, positions.to(ids)))).cpu().view(-1, *ids.shape)
        found = self.kept.prompts.new_zeros(*ids.shape, self.kept.prompts.shape[-1], device=ids.device)
        place = 0
        for stream, target in enumerate(found):
            numbers = read[1, stream] if len(read) > 1 else torch.arange(ids.shape[1])
            for segment in _segments(read[0, stream].tolist(), numbers, self.pad):
                place = self._row_of(segment.ids, place)
                if place < 0:
                    return None
                row = self.rows[place]
                self.kept.copy_row(row.number, row.prompt, segment.first, target[segment.start : segment.end])
        return found

    def _row_of(self, ids: list[int], place: int) -> int:
        """Returns the place of a row that begins with these ids, -1 for none; rows come in order, `place` first."""
        order = (*range(place, len(self.rows)), *range(place)) if ids else ()
        return next((other for other in order if self.rows[other].ids[: len(ids)] == ids), -1)


def _segments(ids: list[int], positions: Tensor, pad: int) -> Iterator[_Segment]:
    """Yields the segments of a stream; what is left of a padded one is no segment."""
    while ids and ids[-1] == pad:
        ids.pop()
    breaks = (positions[: len(ids)].diff() != 1).nonzero()[:, 0].add(1).tolist()
    whole: list[int] = []  # the row that the latest segment with a row's beginning is of
    for start, end in pairwise((0, *breaks, len(ids)) if ids else ()):
        first = int(positions[start])
        row = [*whole[:first], *ids[start:end]]
        if first == 0:
            whole = row
        yield _Segment(start, end, first, row if len(row) == first + end - start else [])
