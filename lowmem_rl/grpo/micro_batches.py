"""From scored groups to micro-batches: rows without an advantage out, similar lengths together, padding cut off.

TRL shuffles all rows of a rollout and cuts them into equal micro-batches, each padded to the longest row of all. The
gradient of an optimizer step is a sum over its rows, so any partition of them gives the same sum, to rounding, as
long as each row keeps its weight: what TRL divides by is kept (`num_items_in_batch`) or compensated (`_parts`).
Rows stay in the optimizer step that a shuffle of whole groups gave them.

The denominators are those of `trl.GRPOTrainer._compute_loss` (TRL 1.15) and of Unsloth's `grpo_compute_loss`
(2026.10.9), which agree. That groups with equal rewards teach nothing is DAPO's observation (arXiv 2503.14476); here
they are left out of the update, and nothing is sampled again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lowmem_rl.grpo.advantages import is_noise
from lowmem_rl.grpo.batch import Batch, row_tensors, take_rows, with_values
from lowmem_rl.planning.overrides import divisors


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a rollout is cut."""

    group_size: int
    micro_batch: int
    """Rows of the longest allowed length in one forward and backward: more if they are shorter. TRL counts steps by it,
    however many rows are really together."""
    steps: int
    """Optimizer steps that share the rollout."""
    loss: str
    drops_dead_rows: bool
    """False under a KL penalty, with which a row without advantage has a gradient too."""
    keeps_groups: bool
    """True if the kernels share the prompt of neighbouring rows (Unsloth's Prefix Grouper); needs a `micro_batch` of
    whole groups."""
    shares_prompts: bool
    """True if a prompt is read once for all its rows in a micro-batch (`prefix_sharing`)."""
    max_prompt_tokens: int
    max_completion_tokens: int
    cuts_each_into: int = 1
    """Parts of each of TRL's micro-batches, of which only one is in memory: above 1 after memory has run out. There may
    be more than rows: what one row of full length needs is enough for several short ones."""

    @property
    def rows_together(self) -> int:
        """Rows of the longest allowed length that may be in memory together, at least one."""
        return max(self.micro_batch // self.cuts_each_into, 1)

    def finer(self, rows: int) -> "BatchPlan":
        """Returns the plan with `rows` together, a divisor of the micro-batch; half the room if these are no fewer."""
        cuts = self.micro_batch // rows if rows < self.rows_together else 2 * self.cuts_each_into
        keeps_groups = self.keeps_groups and rows % self.group_size == 0
        return replace(self, cuts_each_into=cuts, keeps_groups=keeps_groups)

    def after_sharing(self) -> "BatchPlan":
        """Returns what may fit if whole groups, their prompts shared, did not: fewer of them.

        Instead of a single group, rows: so many that with a prompt each they take fewer tokens than the group did.
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
    """The micro-batches of a rollout, None for a slot that stays empty, and how many rows were left out."""

    slots: tuple[Batch | None, ...]
    dead_rows: int


@dataclass(frozen=True, slots=True)
class RowCost:
    """What decides where a row goes. `is_dead`: it changes no weight."""

    number: int
    group: int
    prompt_tokens: int
    completion_tokens: int
    is_dead: bool

    @property
    def tokens(self) -> int:
        """Tokens of the whole row."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one group that stay together, with the longest prompt and the longest completion among them."""

    rows: list[RowCost]
    group: int
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, rows: list[RowCost]) -> "RowBlock":
        """Measures the rows."""
        longest = max(row.prompt_tokens for row in rows), max(row.completion_tokens for row in rows)
        return cls(rows, rows[0].group, *longest)

    @property
    def tokens(self) -> int:
        """Tokens of a row of the block, padded."""
        return self.prompt_tokens + self.completion_tokens


_Part = tuple[list[RowCost], float]
"""The rows of a micro-batch, and the factor on their loss that keeps each row's weight in the step."""

_MICRO_BATCH_TOKENS = 150
"""What one more micro-batch costs, in tokens: 15 ms against 0.09 ms a token for the embedded model in 4 bit on one
x86 core (2026-11-20). It changes the cuts, never a gradient."""


def cut(batch: Batch, plan: BatchPlan, seed: int) -> MicroBatches:
    """Returns the micro-batches of a rollout whose rows are ordered by group; `seed` shuffles the groups.

    There are `cuts_each_into` slots for each micro-batch of TRL's.
    """
    slots: list[Batch | None] = []
    kept = 0
    for rows in _optimizer_steps(_row_costs(batch, plan), plan, seed):
        parts = list(_parts(rows, plan))
        kept += sum(len(part) for part, _ in parts)
        slots += [_take(batch, part, weight, plan) for part, weight in parts]
        slots += [None] * (plan.slots_for(len(rows)) - len(parts))
    return MicroBatches(tuple(slots), len(batch["advantages"]) - kept)


def cut_by_prompt(batch: Batch, plan: BatchPlan) -> Iterator[list[Batch]]:
    """Yields the micro-batches of each prompt that has a gradient, of a rollout for one step.

    In all their gradients add up to those of `cut`; bnpo divides by the tokens of the step instead of a micro-batch.
    """
    rows = _row_costs(batch, plan)
    tokens = sum(row.completion_tokens for row in rows)
    for group in _chunks(rows, plan.group_size):
        live = [row for row in group if not row.is_dead]
        parts = [(part, len(part) / plan.micro_batch) for part in _chunks(live, plan.rows_together)]
        if plan.loss == "dapo":
            parts = [(part, 1.0) for part, _ in parts]
        elif plan.loss == "bnpo":
            each = len(rows) / plan.micro_batch / max(tokens, 1)
            parts = [(part, each * sum(row.completion_tokens for row in part)) for part, _ in parts]
        if parts:
            yield [_take(batch, part, weight, plan) for part, weight in parts]


def _row_costs(batch: Batch, plan: BatchPlan) -> list[RowCost]:
    """Measures the rows, in one copy to the host.

    A row is dead without an advantage, without a token in the loss, or in a group whose advantages are equal; if groups
    stay whole, all rows of a group have to be dead.
    """
    prompts, completions = batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)
    dead = torch.zeros_like(completions, dtype=torch.bool)
    if plan.drops_dead_rows:
        groups = batch["advantages"].view(-1, plan.group_size)
        grouped = (groups == 0.0) | (completions == 0).view_as(groups) | is_noise(groups)[:, None]
        dead = (grouped.all(1, keepdim=True).expand_as(grouped) if plan.keeps_groups else grouped).flatten()
    rows = zip(*torch.stack((prompts, completions, dead)).tolist(), strict=True)
    return [
        RowCost(i, i // plan.group_size, prompt, completion, bool(d)) for i, (prompt, completion, d) in enumerate(rows)
    ]


def _optimizer_steps(rows: Sequence[RowCost], plan: BatchPlan, seed: int) -> Iterator[list[RowCost]]:
    """Yields the rows of each optimizer step, groups whole and shuffled; for bnpo the rows in them are shuffled too."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randperm(len(rows) // plan.group_size, generator=generator).tolist()
    ordered = [rows[group * plan.group_size + i] for group in groups for i in range(plan.group_size)]
    for step in _chunks(ordered, len(rows) // plan.steps):
        shuffles = plan.loss == "bnpo"
        yield [step[i] for i in torch.randperm(len(step), generator=generator).tolist()] if shuffles else step


def _parts(rows: list[RowCost], plan: BatchPlan) -> Iterator[_Part]:
    """Yields the micro-batches of one optimizer step, at least one.

    If all rows are dead, the shortest stays: its gradient is zero, and with it the optimizer takes the step that it
    would have taken (momentum and weight decay still act).
    """
    live = [row for row in rows if not row.is_dead] or [min(rows, key=lambda row: row.tokens)]
    if plan.loss == "bnpo":
        yield from _bnpo_parts(rows, {row.number for row in live}, plan)
    elif plan.loss == "dapo" or plan.drops_dead_rows:
        for part in _cheapest(_blocks(live, plan), plan, most=plan.slots_for(len(rows))):
            yield part, 1.0 if plan.loss == "dapo" else len(part) / plan.micro_batch
    else:  # as many rows as TRL's, so that no factor is needed unless they are cut finer
        shortest_first = sorted(live, key=lambda row: row.tokens)
        if plan.keeps_groups:
            shortest_first = [row for block in reversed(_blocks(live, plan)) for row in block.rows]
        for part in _chunks(shortest_first, plan.rows_together):
            yield part, len(part) / plan.micro_batch


def _bnpo_parts(rows: list[RowCost], live: set[int], plan: BatchPlan) -> Iterator[_Part]:
    """Yields bnpo's micro-batches: its loss divides by the tokens of each, dead rows' too."""
    for chunk in _chunks(rows, plan.micro_batch):
        tokens = sum(row.completion_tokens for row in chunk)
        for part in _chunks([row for row in chunk if row.number in live], plan.rows_together):
            yield part, sum(row.completion_tokens for row in part) / max(tokens, 1)


def _blocks(live: list[RowCost], plan: BatchPlan) -> list[RowBlock]:
    """Returns rows, or groups if these stay whole, the longest first: rows with shared prompts by their completions."""
    if plan.keeps_groups:
        groups: dict[int, list[RowCost]] = {}
        for row in live:
            groups.setdefault(row.group, []).append(row)
        return sorted(map(RowBlock.of, groups.values()), key=lambda block: block.tokens, reverse=True)
    blocks = [RowBlock.of([row]) for row in live]
    return sorted(blocks, key=lambda b: b.completion_tokens if plan.shares_prompts else b.tokens, reverse=True)


def _cheapest(blocks: list[RowBlock], plan: BatchPlan, most: int) -> list[list[RowCost]]:
    """Returns the cheapest cut of `blocks`, in their order, into at most `most` micro-batches.

    The cost is padded tokens and an overhead for each micro-batch, minimised by dynamic programming over the first
    blocks. A cut into `most` exists: a micro-batch holds `rows_together` rows of any length.
    """
    overhead, parts = _MICRO_BATCH_TOKENS, list[list[RowCost]]()
    while not parts or len(parts) > most:
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(blocks) + 1):
            best.append(min(_last_parts(blocks, end, plan, best, overhead)))
        parts, end = [], len(blocks)
        while end:
            start = best[end][1]
            parts.insert(0, [row for block in blocks[start:end] for row in block.rows])
            end = start
        overhead *= 2
    return parts


def _last_parts(
    blocks: list[RowBlock], end: int, plan: BatchPlan, best: Sequence[tuple[float, int]], overhead: int
) -> Iterator[tuple[float, int]]:
    """Yields the cost of the first `end` blocks and the start of the last micro-batch, for each start that fits.

    A micro-batch fits if it needs no more than the planned one: its tokens bound the activations, those of its
    completions the logits.
    """
    most = plan.micro_batch * plan.max_completion_tokens / plan.cuts_each_into
    most_tokens = most + plan.micro_batch * plan.max_prompt_tokens / plan.cuts_each_into
    rows = prompt = completion = 0
    groups = set()
    for start in range(end - 1, -1, -1):
        block = blocks[start]
        rows += len(block.rows)
        groups.add(block.group)
        prompt, completion = max(prompt, block.prompt_tokens), max(completion, block.completion_tokens)
        fits = rows * completion <= most and rows * (prompt + completion) <= most_tokens
        if start < end - 1 and not fits:
            return
        prompts = len(groups) if plan.shares_prompts else rows
        yield best[start][0] + prompts * prompt + rows * completion + overhead, start


def _take(batch: Batch, part: Sequence[RowCost], weight: float, plan: BatchPlan) -> Batch:
    """Returns the part's rows with their `weight`, without columns that are padding in all of them."""
    taken = take_rows(batch, torch.tensor([row.number for row in part]))  # on the CPU, where `max_left_pad` is
    taken["tokens"] = sum(row.completion_tokens for row in part)
    if all(row.is_dead for row in part):
        taken["advantages"] = torch.zeros_like(taken["advantages"])
    if plan.drops_dead_rows:
        taken["advantages"] = taken["advantages"] * weight
    elif weight != 1.0:
        taken["share"] = weight
    # Shared prompts keep their padding: it is cheap once a group, and with it each token keeps its position, whose
    # rotation is rounded. Trimmed, gradients in float32 moved by 8e-6 of the largest, kept by 4e-7 (2026-11-20).
    prompt = batch["prompt_ids"].shape[1] if plan.shares_prompts else max(row.prompt_tokens for row in part)
    return _trimmed(taken, prompt, max(1, *(row.completion_tokens for row in part)))


def _trimmed(batch: Batch, prompt: int, completion: int) -> Batch:
    """Keeps the last `prompt` columns of prompts and the first `completion` ones of completions."""
    left = batch["prompt_ids"].shape[1] - prompt
    width = batch["completion_ids"].shape[1]
    trimmed = {}
    for key, value in row_tensors(batch).items():
        if key.startswith("prompt_"):
            trimmed[key] = value[:, left:]
        elif value.dim() == 2 and value.shape[1] == width:
            trimmed[key] = value[:, :completion]
        elif key.endswith("per_token_logps"):
            # Unsloth's reach to the left by the longest padding of a prompt, which is shorter now.
            trimmed[key] = value[:, : value.shape[1] - (width - completion) - left]
    if "max_left_pad" in batch:
        trimmed["max_left_pad"] = batch["max_left_pad"] - left
    return with_values(batch, trimmed)


def _chunks(rows: Sequence[RowCost], size: int) -> Iterator[list[RowCost]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])
