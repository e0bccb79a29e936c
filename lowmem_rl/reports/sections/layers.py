"""Which weights learned, and which decoder layers in which steps."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from lowmem_rl.config.layer_choice import layers_in, text_of
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number, part

_MOST_LAYERS, _MOST_COLUMNS = 512, 600
"""What is drawn of a deeper model or of a longer run: a screen cannot show more."""
_LONGEST = 4 * _MOST_LAYERS
"""Characters of a list of layers that are read."""
_MOST_PERIODS = 4
"""Periods that are written out."""

Layers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerStrip:
    """A picture of layers, the lowest at the bottom, over steps."""

    first_step: int
    last_step: int
    layers: int
    columns: int
    """Steps that are drawn, evenly spaced if there are many."""
    path: str
    """Of SVG: a box, one layer high, for each stretch of columns in which a layer learned."""
    sentence: str
    has_gaps: bool
    """Some layer did not learn in some step."""


def layer_strip(record: RunRecord) -> LayerStrip | None:
    """Returns the picture; None if it is not recorded, or if all layers learned in all steps."""
    strip = any_layer_strip(record)
    return strip if strip and strip.has_gaps else None


def any_layer_strip(record: RunRecord) -> LayerStrip | None:
    """Returns the picture even if it is filled; None if the run has not recorded which layers learned."""
    by_step = {
        row["step"]: tuple(layer for layer in layers_in(text[:_LONGEST]) if layer < _MOST_LAYERS)
        for row in record.metrics
        if isinstance(text := row.get("trainable_layers"), str)
    }
    sets = list(by_step.values())
    if not sets:
        return None
    depth = _depth(record, sets)
    columns = [frozenset(layers) for layers in sets[:: -(-len(sets) // _MOST_COLUMNS)]]
    path = "".join(box for layer in range(depth) for box in _boxes(columns, layer, depth))
    has_gaps = any(len(layers) < depth for layers in sets)
    return LayerStrip(min(by_step), max(by_step), depth, len(columns), path, _sentence(by_step, depth), has_gaps)


def what_learned(record: RunRecord) -> str | None:
    """Returns which weights learned, in a few words; None for a run without the section `trainable`."""
    trainable = part(record.config, "trainable")
    if not trainable:
        return None
    layers = one_line(trainable.get("layers"), 40)
    where = "all layers" if layers == "all" else f"layers {layers}"
    if (select := trainable.get("select", "none")) != "none":
        where = f"{one_line(trainable.get('select_top'), 12)} of {where}, chosen by {one_line(select, 30)}"
    chosen = "" if layers == "none" else f"{_kind(record)} in {where}"
    extra = trainable.get("extra")
    names = ", ".join(one_line(name, 20) for name in extra) if isinstance(extra, list) else ""
    schedule = one_line(trainable.get("schedule"), 30)
    changes = "" if schedule == "fixed" else f"; {schedule}, every = {one_line(trainable.get('every'), 12)}"
    return " and ".join(filter(None, (chosen, names))) + changes


def _kind(record: RunRecord) -> str:
    if record.setting("trainable.method") == "full":
        return "whole weights"
    if record.setting("adapter.peft_type") == "tinylora":
        return "TinyLoRA"
    kind = "DoRA" if record.setting("adapter.use_dora") is True else "adapters"
    return f"{kind} of rank {one_line(record.setting('adapter.rank'), 12)}"


def _depth(record: RunRecord, sets: Sequence[Layers]) -> int:
    """Returns the model's layers; of a run that has not written them down, as many as are seen to learn."""
    known = number(record.estimate, "num_layers") or 0
    return max(int(min(known, _MOST_LAYERS)), max((layers[-1] + 1 for layers in sets if layers), default=1))


def _boxes(columns: Sequence[frozenset[int]], layer: int, depth: int) -> Iterator[str]:
    start = 0
    for learns, stretch in groupby(layer in layers for layers in columns):
        length = len(list(stretch))
        if learns:
            yield f"M{start} {depth - 1 - layer}h{length}v1h-{length}z"
        start += length


def _sentence(by_step: dict[int, Layers], depth: int) -> str:
    """Returns who learned when: period by period if there are few."""
    steps, first = list(by_step), min(by_step)
    changes = [step for before, step in pairwise(steps) if by_step[step] != by_step[before]]
    begins = [first, *changes]
    if len(begins) > _MOST_PERIODS:
        learned = Counter(layer for layers in by_step.values() for layer in layers)
        counts = [learned[layer] for layer in range(depth)]
        each = f"each of the {depth} layers learned in {_counts(counts)} of {len(steps)} steps"
        return f"The set of layers changed {len(changes)} times; {each}."
    ends = [*(step - 1 for step in changes), max(by_step)]
    periods = [f"{text_of(by_step[begin])} {_span(begin, end)}" for begin, end in zip(begins, ends, strict=True)]
    return f"Of {depth} layers, 0 next to the embeddings, these learned: {'; '.join(periods)}."


def _counts(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _span(begin: int, end: int) -> str:
    return f"in step {begin}" if begin == end else f"in steps {begin} to {end}"
