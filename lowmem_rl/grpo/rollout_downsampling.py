"""Learns from the most telling rows of each group only. Changes learning; off unless `grpo.update_rows` is set.

Sampling is cheap beside the update, so many completions are sampled and the few with the most spread in reward are
learnt from: max-variance down-sampling of PODS (arXiv 2504.13818). Its theorem 1: the subset of m rewards with the
largest variance is made of the k highest and the m - k lowest for some k.
"""

from collections.abc import Sequence
from statistics import pvariance

import torch

from lowmem_rl.grpo.micro_batches import Batch


def down_sampled(batch: Batch, group_size: int, rows: int, *, scaled: bool, counts_rows: bool) -> Batch:
    """Returns the rollout with `rows` rows of each group left in the loss; those left out get advantage 0.

    Advantages are taken anew among the kept rows, divided by their spread where `scaled`. The loss stays the mean
    over what is learnt from: over fewer tokens, or over fewer rows where it divides by their number (`counts_rows`).
    """
    advantages = batch["advantages"].view(-1, group_size)
    kept = torch.zeros_like(advantages, dtype=torch.bool)
    for group, values in enumerate(advantages.tolist()):
        kept[group, most_spread(values, rows)] = True
    chosen = advantages[kept].view(-1, rows)
    # Equal ones are noise around none (`batching.is_noise`), and their mean may miss them.
    alike = (chosen == chosen[:, :1]).all(1, keepdim=True)
    chosen = (chosen - chosen.mean(1, keepdim=True)).masked_fill(alike, 0.0)
    if scaled:
        chosen = chosen / (chosen.std(1, keepdim=True) + 1e-4)  # as TRL divides
    taken = torch.zeros_like(advantages)
    taken[kept] = (chosen * (group_size / rows if counts_rows else 1.0)).flatten()
    tokens = batch["completion_mask"].sum(1)[kept.flatten()].sum()
    return batch | {"advantages": taken.flatten(), "num_items_in_batch": tokens.to(batch["num_items_in_batch"])}


def most_spread(values: Sequence[float], count: int) -> list[int]:
    """Returns the places of the `count` values with the largest variance."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ends = (order[:low] + order[len(order) - (count - low) :] for low in range(count + 1))
    return max(ends, key=lambda places: pvariance([values[place] for place in places]))
