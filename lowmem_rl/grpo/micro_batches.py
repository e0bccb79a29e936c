"""From scored groups to micro-batches: rows without an advantage out, similar lengths together, padding cut off.

TRL shuffles all rows of a rollout and cuts them into equal micro-batches, each padded to the longest row of all. The
gradient of an optimizer step is a sum over its rows, so any partition of them gives the same sum, to rounding, as
long as each row keeps its weight: what TRL divides by is kept (`num_items_in_batch`) or made good (`_parts`).
Rows stay in the optimizer step that a shuffle of whole groups gave them.

The denominators are those of `trl.GRPOTrainer._compute_loss` (TRL 1.15) and of Unsloth's `grpo_compute_loss`
(2026.10.9), which agree. That groups without spread teach nothing is DAPO's observation (arXiv 2503.14476); here they
are left out of the update, and nothing is resampled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.planning.overrides import divisors

Batch = dict[str, Any]
"""What TRL hands to its loss: row tensors (rows, ...), and scalars of the whole rollout."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a rollout is cut."""

    group_size: int
    micro_batch: int
    """Rows of the longest allowed length that one forward and backward may hold: more, where they are shorter. By it
    TRL counts, whatever stands together."""
    steps: int
    """Optimizer steps that share the rollout."""
    loss: str
    drops_dead_rows: bool
    """False under a KL penalty, where a row without advantage has a gradient too."""
    keeps_groups: bool
    """True where the kernels share the prompt of neighbouring rows (Unsloth's Prefix Grouper); needs
    a `micro_batch` of whole groups."""
    shares_prompts: bool
    """True where a prompt is read once for all its rows in a micro-batch (`shared_prompt`)."""
    max_prompt_tokens: int
    max_completion_tokens: int
    cuts_each_into: int = 1
    """Parts of each of TRL's micro-batches, of which only one stands in memory: above 1 once memory has run out. There
    may be more than rows: what one row of full length needs is the room of several short ones."""

    @property
    def rows_together(self) -> int:
        """Rows of the longest allowed length that may stand in memory together; one always may."""
        return max(self.micro_batch // self.cuts_each_into, 1)

    def finer(self, rows: int) -> "BatchPlan":
        """Leaves `rows` together, a divisor of the micro-batch; half the room where they are no fewer than now."""
        cuts = self.micro_batch // rows if rows < self.rows_together else 2 * self.cuts_each_into
        keeps_groups = self.keeps_groups and rows % self.group_size == 0
        return replace(self, cuts_each_into=cuts, keeps_groups=keeps_groups)

    def after_sharing(self) -> "BatchPlan":
        """Returns what may fit if whole groups, their prompts shared, did not: fewer of them.

        Of a single group, rows: so many that with a prompt each they take fewer tokens than the group did.
        """
        half, groups = self.rows_together // 2, self.rows_together // self.group_size
        shared = groups * self.max_prompt_tokens + self.rows_together * self.max_completion_tokens
        fits = shared // (self.max_prompt_tokens + self.max_completion_tokens)
        smaller = divisors(self.micro_batch, half)
        whole = [rows for rows in smaller if rows % self.group_size == 0]
        return self.finer(whole[-1] if whole else max([rows for rows in smaller if rows <= fits], default=1))

    def slots_for(self, rows: int) -> int:
        """Returns the micro-batches into which so many rows may be cut."""
        return rows // self.micro_batch * self.cuts_each_into


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """The micro-batches of a rollout, None where a slot stays empty, and how many rows were left out."""

    slots: tuple[Batch | None, ...]
    dead_rows: int


@dataclass(frozen=True, slots=True)
class RowCost:
    """What decides where a row goes. `is_dead`: it moves no weight."""

    number: int
    group: int
    prompt_tokens: int
    completion_tokens: int
    is_dead: bool


MICRO_BATCH_TOKENS = 150
"""What one more micro-batch costs, in tokens: 15 ms against 0.09 ms a token for the embedded model in 4 bit on one
x86 core (2026-11-20). It moves cuts, never a gradient."""


def cut(batch: Batch, layout: BatchPlan, seed: int) -> MicroBatches:
    """Returns the micro-batches of a rollout whose rows lie group by group; `seed` orders the groups.

    There are `cuts_each_into` slots for each that TRL makes.
    """
    slots: list[Batch | None] = []
    kept = 0
    for rows in _optimizer_steps(_rows_of(batch, layout), layout, seed):
        parts = list(_parts(rows, layout))
        kept += sum(len(part) for part, _ in parts)
        slots += [_take(batch, part, weight, layout) for part, weight in parts]
        slots += [None] * (layout.slots_for(len(rows)) - len(parts))
    return MicroBatches(tuple(slots), len(batch["advantages"]) - kept)


def _rows_of(batch: Batch, layout: BatchPlan) -> list[RowCost]:
    """Reads lengths and advantages in one transfer."""
    lengths = torch.stack((batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)))
    prompts, completions, advantages = torch.cat((lengths, batch["advantages"][None]), dim=0).tolist()
    dead = _dead(advantages, completions, layout) if layout.drops_dead_rows else [False] * len(advantages)
    rows = zip(prompts, completions, dead, strict=True)
    return [RowCost(i, i // layout.group_size, int(p), int(c), d) for i, (p, c, d) in enumerate(rows)]


def _dead(advantages: Sequence[float], completions: Sequence[float], layout: BatchPlan) -> list[bool]:
    """Says of each row whether it moves no weight: no advantage, no token in the loss, or a group all alike."""
    rows = [a == 0.0 or c == 0 for a, c in zip(advantages, completions, strict=True)]
    for start in range(0, len(rows), layout.group_size):
        group = slice(start, start + layout.group_size)
        if is_noise(advantages[group]):
            rows[group] = [True] * layout.group_size
        elif layout.keeps_groups:
            rows[group] = [all(rows[group])] * layout.group_size
    return rows


def is_noise(advantages: Sequence[float]) -> bool:
    """Says whether a group's advantages are rounding around none.

    The mean in float32 may miss eight equal rewards by 1e-8, which the division by their spread makes 1e-4; but then
    they all miss it alike.
    """
    return len(set(advantages)) == 1


def _optimizer_steps(rows: Sequence[RowCost], layout: BatchPlan, seed: int) -> Iterator[list[RowCost]]:
    """Yields the rows of each optimizer step, groups whole and shuffled; for bnpo the rows in them are shuffled too."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randperm(len(rows) // layout.group_size, generator=generator).tolist()
    ordered = [rows[group * layout.group_size + i] for group in groups for i in range(layout.group_size)]
    size = len(rows) // layout.steps
    for start in range(0, len(rows), size):
        step = ordered[start : start + size]
        yield [step[i] for i in torch.randperm(size, generator=generator).tolist()] if layout.loss == "bnpo" else step


Part = tuple[list[RowCost], float]
"""The rows of a micro-batch, and the factor on their loss that keeps each row's weight in the step."""

SHARE = "share"
"""Key of that factor in a batch under a KL penalty, unless it is 1: on the advantages it would not reach the KL term.
The same for all such batches of a step."""
TOKENS = "tokens"
"""Key of a batch's completion tokens: a number that is known here, and that nobody then has to wait for."""


def _parts(rows: list[RowCost], layout: BatchPlan) -> Iterator[Part]:
    """Yields the micro-batches of one optimizer step, at least one.

    Where no row moves a weight the shortest stays: its gradient is zero, and with it the optimizer takes the step
    that it would have taken (momentum and weight decay act on).
    """
    live = [row for row in rows if not row.is_dead] or [min(rows, key=_width)]
    if layout.loss == "bnpo":
        yield from _fixed_parts(rows, {row.number for row in live}, layout)
    elif layout.loss == "dapo" or layout.drops_dead_rows:
        units = _units(live, layout)
        for part in _cheapest(units, layout, most=layout.slots_for(len(rows))):
            yield part, 1.0 if layout.loss == "dapo" else len(part) / layout.micro_batch
    else:  # as many rows as TRL's, so that no factor is needed unless they are cut finer
        for part in _chunks(_by_width(live, layout), layout.rows_together):
            yield part, len(part) / layout.micro_batch


def _by_width(live: list[RowCost], layout: BatchPlan) -> list[RowCost]:
    """Returns the rows, the shortest first; in whole groups where these stay together."""
    if layout.keeps_groups:
        return [row for unit in reversed(_units(live, layout)) for row in unit.rows]
    return sorted(live, key=_width)


def _fixed_parts(rows: list[RowCost], live: set[int], layout: BatchPlan) -> Iterator[Part]:
    """Yields bnpo's micro-batches: its loss divides by the tokens of each, dead rows' too."""
    for chunk in _chunks(rows, layout.micro_batch):
        tokens = sum(row.completion_tokens for row in chunk)
        for part in _chunks([row for row in chunk if row.number in live], layout.rows_together):
            yield part, sum(row.completion_tokens for row in part) / max(tokens, 1)


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows that may not be torn apart, and what they cost a micro-batch."""

    rows: list[RowCost]
    groups: frozenset[int]
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, rows: list[RowCost]) -> "RowBlock":
        """Measures the rows."""
        longest = max(row.prompt_tokens for row in rows), max(row.completion_tokens for row in rows)
        return cls(rows, frozenset(row.group for row in rows), *longest)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def _units(live: list[RowCost], layout: BatchPlan) -> list[RowBlock]:
    """Returns rows, or groups where they stay whole, the longest first: those that share prompts by their answers."""
    if layout.keeps_groups:
        groups: dict[int, list[RowCost]] = {}
        for row in live:
            groups.setdefault(row.group, []).append(row)
        return sorted(map(RowBlock.of, groups.values()), key=lambda unit: unit.tokens, reverse=True)
    units = [RowBlock.of([row]) for row in live]
    return sorted(units, key=lambda u: u.completion_tokens if layout.shares_prompts else u.tokens, reverse=True)


def _cheapest(units: list[RowBlock], layout: BatchPlan, most: int) -> list[list[RowCost]]:
    """Returns the cheapest cut of `units`, in their order, into at most `most` micro-batches.

    Such a cut exists: a micro-batch holds `rows_together` rows of any length.
    """
    overhead = MICRO_BATCH_TOKENS
    while len(parts := _cut_with(units, layout, overhead)) > most:
        overhead *= 2
    return parts


def _cut_with(units: list[RowBlock], layout: BatchPlan, overhead: int) -> list[list[RowCost]]:
    """Minimises padded tokens and `overhead` for each micro-batch, by dynamic programming over the first units."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(units) + 1):
        best.append(min(_endings(units, end, layout, best, overhead)))
    parts, end = [], len(units)
    while end:
        start = best[end][1]
        parts.append([row for unit in units[start:end] for row in unit.rows])
        end = start
    return parts[::-1]


def _endings(
    units: list[RowBlock], end: int, layout: BatchPlan, best: Sequence[tuple[float, int]], overhead: int
) -> Iterator[tuple[float, int]]:
    """Yields the cost of the first `end` units and the start of the last micro-batch, for each start that fits."""
    rows = prompt = completion = 0
    groups: frozenset[int] = frozenset()
    for start in range(end - 1, -1, -1):
        unit = units[start]
        rows += len(unit.rows)
        groups |= unit.groups
        prompt, completion = max(prompt, unit.prompt_tokens), max(completion, unit.completion_tokens)
        if start < end - 1 and not _fits(rows, prompt, completion, layout):
            return
        prompts = len(groups) if layout.shares_prompts else rows
        yield best[start][0] + prompts * prompt + rows * completion + overhead, start


def _fits(rows: int, prompt: int, completion: int, layout: BatchPlan) -> bool:
    """Says whether a micro-batch needs no more than the planned one: its tokens bound the activations, those of its
    completions the logits."""
    most = layout.micro_batch * layout.max_completion_tokens / layout.cuts_each_into
    prompts = layout.micro_batch * layout.max_prompt_tokens / layout.cuts_each_into
    return rows * completion <= most and rows * (prompt + completion) <= most + prompts


def _take(batch: Batch, part: Sequence[RowCost], weight: float, layout: BatchPlan) -> Batch:
    """Returns the part's rows with their `weight`, without columns that are padding in all of them."""
    numbers = torch.tensor([row.number for row in part])  # on the CPU: Unsloth leaves `max_left_pad` there
    total = len(batch["advantages"])
    taken = {
        key: value[numbers] if isinstance(value, Tensor) and value.dim() and len(value) == total else value
        for key, value in batch.items()
    }
    taken[TOKENS] = sum(row.completion_tokens for row in part)
    if all(row.is_dead for row in part):
        taken["advantages"] = torch.zeros_like(taken["advantages"])
    if layout.drops_dead_rows:
        taken["advantages"] = taken["advantages"] * weight
    elif weight != 1.0:
        taken[SHARE] = weight
    prompt, completion = max(row.prompt_tokens for row in part), max(row.completion_tokens for row in part)
    # Shared prompts keep their padding: it is cheap once a group, and with it each token keeps its position, whose
    # rotation is rounded. Trimmed, gradients in float32 moved by 8e-6 of the largest, kept by 4e-7 (2026-11-20).
    prompt = batch["prompt_ids"].shape[1] if layout.shares_prompts else prompt
    return _trimmed(taken, prompt, max(completion, 1))


def _trimmed(batch: Batch, prompt: int, completion: int) -> Batch:
    """Keeps the last `prompt` columns of prompts and the first `completion` ones of completions."""
    left = batch["prompt_ids"].shape[1] - prompt
    width = batch["completion_ids"].shape[1]
    trimmed = dict(batch)
    for key, value in batch.items():
        if key.startswith("prompt_"):
            trimmed[key] = value[:, left:]
        elif isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == width:
            trimmed[key] = value[:, :completion]
        elif key.endswith("per_token_logps"):
            # Unsloth's reach to the left by the longest padding of a prompt, which is shorter now.
            trimmed[key] = value[:, : value.shape[1] - (width - completion) - left]
    if "max_left_pad" in batch:
        trimmed["max_left_pad"] = batch["max_left_pad"] - left
    return trimmed


def _width(row: RowCost) -> int:
    return row.prompt_tokens + row.completion_tokens


def _chunks(rows: Sequence[RowCost], size: int) -> Iterator[list[RowCost]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])
