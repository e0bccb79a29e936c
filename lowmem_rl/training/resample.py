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

from lowmem_rl.training.batching import Batch


def dead_groups(batch: Batch, group_size: int) -> list[int]:
    """Returns the numbers of the groups whose rows all have the same advantage."""
    groups = batch["advantages"].view(-1, group_size).tolist()
    return [number for number, group in enumerate(groups) if len(set(group)) == 1]


def other_prompts(dataset: Any, asked: Collection[str], count: int, seed: str) -> list[Any]:
    """Returns up to `count` rows of the data set whose examples were not asked for; `seed` decides which."""
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    free = (row for row in (dataset[i] for i in order) if row["example_id"] not in asked)
    return [row for row, _ in zip(free, range(count), strict=False)]


def replaced(batch: Batch, dead: Sequence[int], more: Batch, group_size: int) -> Batch:
    """Returns the rollout with the informative groups of `more` in the place of as many dead ones."""
    silent = set(dead_groups(more, group_size))
    fresh = [number for number in range(len(more["advantages"]) // group_size) if number not in silent]
    pairs = list(zip(dead, fresh, strict=False))
    targets, sources = ([g * group_size + i for g in side for i in range(group_size)] for side in _sides(pairs))
    merged = {key: _with_rows(key, batch[key], more[key], targets, sources) for key in batch if _has_rows(key, batch)}
    tokens = merged["completion_mask"].sum().to(batch["num_items_in_batch"])
    return batch | merged | {"num_items_in_batch": tokens}


def _sides(pairs: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [target for target, _ in pairs], [source for _, source in pairs]


def _has_rows(key: str, batch: Batch) -> bool:
    value = batch[key]
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(batch["advantages"])


def _with_rows(key: str, old: Tensor, new: Tensor, targets: list[int], sources: list[int]) -> Tensor:
    if old.dim() == 2:
        width = max(old.shape[1], new.shape[1])
        old, new = (_widened(key, value, width) for value in (old, new))
    old = old.clone()
    old[torch.tensor(targets, dtype=torch.long)] = new[torch.tensor(sources, dtype=torch.long)]
    return old


def _widened(key: str, rows: Tensor, width: int) -> Tensor:
    """Pads with zeros, which masks and attention hide: prompts on the left, all else on the right."""
    missing = width - rows.shape[1]
    return pad(rows, (missing, 0) if key.startswith("prompt_") else (0, missing))
