"""Replaces groups without signal by groups with signal. Changes learning; off unless `grpo.resample_rounds` is set.

DAPO's dynamic sampling (arXiv 2503.14476, section 3.2) keeps sampling until the batch is full of informative groups;
here the number of rounds is bounded, and dead groups that are left stay (they cost no update).
"""

import random
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lowmem_rl.grpo.advantages import is_noise
from lowmem_rl.grpo.batch import Batch, row_tensors, with_values
from lowmem_rl.grpo.train_dataset import Prompt


def dead_groups(batch: Batch, group_size: int) -> list[int]:
    """Returns the numbers of the groups whose advantages are all equal: they carry no signal."""
    dead = is_noise(batch["advantages"].view(-1, group_size)).tolist()
    return [number for number, is_dead in enumerate(dead) if is_dead]


def other_prompts(dataset: Sequence[Prompt], asked: Collection[str], count: int, seed: str) -> list[Prompt]:
    """Returns up to `count` rows of the data set whose examples were not asked for; `seed` decides which."""
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    free = (row for row in (dataset[i] for i in order) if row["example_id"] not in asked)
    return [row for row, _ in zip(free, range(count), strict=False)]


def replaced(batch: Batch, dead: Sequence[int], more: Batch, group_size: int, pad_id: int) -> Batch:
    """Returns the rollout with the informative groups of `more` in the place of as many of its `dead` ones."""
    silent = set(dead_groups(more, group_size))
    fresh = [number for number in range(len(more["advantages"]) // group_size) if number not in silent]
    count = min(len(dead), len(fresh))
    targets, sources = (
        torch.tensor([group * group_size + i for group in groups[:count] for i in range(group_size)], dtype=torch.long)
        for groups in (dead, fresh)
    )
    old, new = _equally_wide(batch, more, pad_id)
    for key, values in old.items():
        values[targets] = new[key][sources]
    tokens = old["completion_mask"].sum().to(batch["num_items_in_batch"])
    return with_values(batch, old | {"num_items_in_batch": tokens})


def _equally_wide(one: Batch, other: Batch, pad_id: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns copies of both rollouts' row tensors, padded to the longest prompt and completion of the two."""
    prompt = max(batch["prompt_ids"].shape[1] for batch in (one, other))
    completion = max(batch["completion_ids"].shape[1] for batch in (one, other))
    # If all prompts are padded to the same width, they are padded by that much more.
    reach = max(_reach(batch) + prompt - batch["prompt_ids"].shape[1] for batch in (one, other))
    return _widened(one, prompt, completion, reach, pad_id), _widened(other, prompt, completion, reach, pad_id)


def _reach(batch: Batch) -> int:
    """Returns by how many columns Unsloth's log-probs begin before the completions: the longest padding of a prompt."""
    return int(batch["max_left_pad"].max()) if "max_left_pad" in batch else 0


def _widened(batch: Batch, prompt: int, completion: int, reach: int, pad_id: int) -> dict[str, Tensor]:
    """Pads prompts on the left, all else on the right; ids with `pad_id`, by which Unsloth knows the padding."""
    left, right = prompt - batch["prompt_ids"].shape[1], completion - batch["completion_ids"].shape[1]
    widened = {}
    for key, value in row_tensors(batch).items():
        if key.startswith("prompt_"):
            widened[key] = pad(value, (left, 0), value=pad_id if key == "prompt_ids" else 0)
        elif key == "max_left_pad":
            widened[key] = torch.full_like(value, reach)
        elif key.endswith("per_token_logps") and "max_left_pad" in batch:
            # A completion begins after as many columns as its prompt has less padding than the one with the most.
            before = reach - left - _reach(batch)
            widened[key] = pad(value, (before, completion + reach - value.shape[1] - before))
        elif value.dim() == 2:
            widened[key] = pad(value, (0, right), value=pad_id if key == "completion_ids" else 0)
        else:
            widened[key] = value.clone()
    return widened
