"""GRPO's advantage: how much better a completion's reward is than its group's.

    A_i = (r_i - mean(r of the group)) / (std + 1e-4)

std is that of the group in GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2), that of all rows for "batch" (arXiv
2508.08221), and for "none" nothing is divided (Dr. GRPO, arXiv 2503.20783). TRL computes the same for a rollout
(`GRPOTrainer._generate_and_score_completions`, TRL 1.15); here it is for rollouts whose rows change afterwards, and
for the baseline that TRL lacks: the group's median in the place of its mean (MC-GRPO, arXiv 2601.22582).
"""

from typing import Literal

import torch
from torch import Tensor

_EPSILON = 1e-4
"""TRL's."""


def group_advantages(
    rewards: Tensor,
    group_size: int,
    scale_rewards: Literal["group", "batch", "none"],
    baseline: Literal["mean", "median"] = "mean",
) -> Tensor:
    """Returns the advantages (R,) of the weighted `rewards` (R,), group by group.

    A row that no reward has scored is NaN: it is left out of mean, median and std, and its advantage is 0. Of an even
    number of rewards the median is the lower one in the middle.
    """
    groups = rewards.view(-1, group_size)
    centre = groups.nanmean(1, keepdim=True) if baseline == "mean" else groups.nanmedian(1, keepdim=True).values
    advantages = groups - centre
    if scale_rewards != "none":
        scope = groups if scale_rewards == "group" else groups.view(1, -1)
        advantages = advantages / (_nanstd(scope) + _EPSILON)
    return advantages.flatten().nan_to_num(nan=0.0)


def weighted_rewards(scores: Tensor, weights: Tensor) -> Tensor:
    """Returns the weighted sum (R,) of each row's `scores` (R, n), NaN left out; NaN for a row without any, as TRL."""
    return (scores * weights).nansum(1).masked_fill(scores.isnan().all(1), torch.nan)


def _nanstd(rows: Tensor) -> Tensor:
    """Returns the standard deviation of each of `rows` (n, k) with Bessel's correction, NaN left out: (n, 1)."""
    variance = ((rows - rows.nanmean(1, keepdim=True)) ** 2).nanmean(1, keepdim=True)
    count = (~rows.isnan()).sum(1, keepdim=True)
    return (variance * torch.where(count > 1, count / (count - 1), torch.nan)).sqrt()


def is_noise(advantages: Tensor) -> Tensor:
    """Returns of each group of `advantages` (groups, G) whether they are rounding errors of 0: all equal (groups,).

    The mean in float32 may miss eight equal rewards by 1e-8, which the division by their std makes 1e-4; but then it
    misses all of them by the same.
    """
    return (advantages == advantages[:, :1]).all(1)
