"""Puts groups with signal in the place of groups without. Changes learning; off unless `grpo.resample_rounds` is set.

DAPO's dynamic sampling (arXiv 2503.14476, section 3.2) keeps sampling until the batch is full of informative groups;
here the number of rounds is bounded, and dead groups that are left stay (they cost no update).
"""

import random
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lowmem_rl.grpo.micro_batches import Batch, is_noise


def dead_groups(batch: Batch, group_size: int) -> list[int]:
    """Returns the numbers of the groups whose advantages say nothing."""
    groups = batch["advantages"].view(-1, group_size).tolist()
    return [number for number, group in enumerate(groups) if is_noise(group)]


def other_prompts(dataset: Any, asked: Collection[str], count: int, seed: str) -> list[Any]:
    """Returns up to `count` rows of the data set whose examples were not asked for; `seed` decides which."""
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    free = (row for row in (dataset[i] for i in order) if row["example_id"] not in asked)
    return [row for row, _ in zip(free, range(count), strict=False)]


def replaced(batch: Batch, dead: Sequence[int], more: Batch, group_size: int, pad_id: int) -> Batch:
    """Returns the rollout with the informative groups of `more` in the place of as many dead ones."""
    silent = set(dead_groups(more, group_size))
    fresh = [number for number in range(len(more["advantages"]) // group_size) if number not in silent]
    pairs = list(zip(dead, fresh, strict=False))
    targets, sources = ([g * group_size + i for g in side for i in range(group_size)] for side in _sides(pairs))
    batch, more = _equally_wide(batch, more, pad_id)
    merged = {key: _with_rows(batch[key], more[key], targets, sources) for key in _row_keys(batch)}
    tokens = merged["completion_mask"].sum().to(batch["num_items_in_batch"])
    return batch | merged | {"num_items_in_batch": tokens}


def _sides(pairs: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [target for target, _ in pairs], [source for _, source in pairs]


def _row_keys(batch: Batch) -> list[str]:
    rows = len(batch["advantages"])
    return [key for key, value in batch.items() if isinstance(value, Tensor) and value.dim() and len(value) == rows]


def _with_rows(old: Tensor, new: Tensor, targets: list[int], sources: list[int]) -> Tensor:
    old = old.clone()
    old[torch.tensor(targets, dtype=torch.long)] = new[torch.tensor(sources, dtype=torch.long)]
    return old


def _equally_wide(one: Batch, other: Batch, pad_id: int) -> tuple[Batch, Batch]:
    """Pads both rollouts to the longest prompt and the longest completion of the two."""
    prompt, completion = (
        max(batch[key].shape[1] for batch in (one, other)) for key in ("prompt_ids", "completion_ids")
    )
    # Padded to the same width, prompts are padded by that much more.
    reach = max(_reach(batch) + prompt - batch["prompt_ids"].shape[1] for batch in (one, other))
    return _widened(one, prompt, completion, reach, pad_id), _widened(other, prompt, completion, reach, pad_id)


def _reach(batch: Batch) -> int:
    """Returns by how much Unsloth's log-probs begin before the completions: by the longest padding of a prompt."""
    return int(batch["max_left_pad"].max()) if "max_left_pad" in batch else 0


def _widened(batch: Batch, prompt: int, completion: int, reach: int, pad_id: int) -> Batch:
    """Pads prompts on the left, all else on the right; ids with `pad_id`, by which Unsloth knows the padding."""
    left, right = prompt - batch["prompt_ids"].shape[1], completion - batch["completion_ids"].shape[1]
    widened = dict(batch)
    for key in _row_keys(batch):
        value = batch[key]
        if key.startswith("prompt_"):
            widened[key] = pad(value, (left, 0), value=pad_id if key == "prompt_ids" else 0)
        elif key == "max_left_pad":
            widened[key] = torch.full_like(value, reach)
        elif key.endswith("per_token_logps") and "max_left_pad" in batch:
            # A completion begins behind as many columns as its prompt has less padding than the one with the most.
            before = reach - left - _reach(batch)
            widened[key] = pad(value, (before, completion + reach - value.shape[1] - before))
        elif value.dim() == 2:
            widened[key] = pad(value, (0, right), value=pad_id if key == "completion_ids" else 0)
    return widened
