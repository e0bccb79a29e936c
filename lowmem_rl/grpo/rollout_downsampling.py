"""Trains on the most widely spread rows of each group only. Changes learning; off unless `grpo.update_rows` is set.

Sampling is cheaper than the update, so many completions are sampled, and the few with the most spread in reward are
learned from: max-variance down-sampling of PODS (arXiv 2504.13818). Its theorem 1: the subset of m rewards with the
largest variance is made of the k highest and the m - k lowest for some k.
"""

from collections.abc import Sequence
from statistics import pvariance

import torch

from lowmem_rl.grpo.advantages import group_advantages, is_noise
from lowmem_rl.grpo.batch import Batch, with_values


def down_sampled(batch: Batch, group_size: int, rows: int, *, scaled: bool, counts_rows: bool) -> Batch:
    """Returns the rollout with `rows` rows of each group left in the loss; the others get advantage 0.

    Advantages are computed again among the kept rows, divided by their std if `scaled`. The loss stays the mean over
    what is learned from: over fewer tokens, or over fewer rows if it divides by their number (`counts_rows`).
    """
    advantages = batch["advantages"].view(-1, group_size)
    kept = torch.zeros_like(advantages, dtype=torch.bool)
    for group, values in enumerate(advantages.tolist()):
        kept[group, most_spread(values, rows)] = True
    chosen = advantages[kept]
    again = group_advantages(chosen, rows, "group" if scaled else "none").view(-1, rows)
    again = again.masked_fill(is_noise(chosen.view(-1, rows))[:, None], 0.0)
    result = torch.zeros_like(advantages)
    result[kept] = (again * (group_size / rows if counts_rows else 1.0)).flatten()
    tokens = batch["completion_mask"].sum(1)[kept.flatten()].sum().to(batch["num_items_in_batch"])
    return with_values(batch, {"advantages": result.flatten(), "num_items_in_batch": tokens})


def most_spread(values: Sequence[float], count: int) -> list[int]:
    """Returns the places of the `count` values with the largest variance."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ends = (order[:low] + order[len(order) - (count - low) :] for low in range(count + 1))
    return max(ends, key=lambda places: pvariance([values[place] for place in places]))
