"""Groups of rewards: a group is informative if its rewards differ, else dead (its advantages are all zero).

The expectations hold for completions that are independent given the prompt; temperature 0 or equal seeds break that.
"""

from collections.abc import Callable, Sequence

_MIN_GROUP_SIZE = 2
"""The advantage of a single completion is always zero."""
MAX_GROUP_SIZE = 256
"""Largest group that is searched: a data set that needs more is better filtered."""
MEANINGFUL_SHARE = 0.8
"""Informative share from which a group counts as meaningful."""
ROUNDING = 1e-9
"""Closed forms through `lgamma` miss round numbers by some 1e-13: uniform pass rates and 9 completions give 0.8."""


def informative_share(rewards: Sequence[float], group_size: int) -> float:
    """Returns the share of informative groups of rewards that are ordered by group.

    TRL's `frac_reward_zero_std` asks whether the standard deviation is below 1e-8, which float32 misses already for
    eight rewards of 1.2.
    """
    groups = [rewards[i : i + group_size] for i in range(0, len(rewards), group_size)]
    return sum(max(group) > min(group) for group in groups) / len(groups)


def dead_step_probability(informative_share: float, prompts_per_step: int) -> float:
    """Returns the probability that no group of a step is informative: (1 - S)^Q, prompts drawn independently."""
    return float((1 - informative_share) ** prompts_per_step)


def baseline_efficiency(group_size: int) -> float:
    """Returns the sample efficiency of the group's mean against a perfect baseline: 1 - 1/G.

    Squared signal to noise at a fixed number of rollouts, advantages not scaled by the group's deviation.
    """
    return 1 - 1 / group_size


def smallest_group_size(share_of: Callable[[int], float], share: float = MEANINGFUL_SHARE) -> int | None:
    """Returns the smallest group whose expected informative share reaches `share`, or None up to `MAX_GROUP_SIZE`.

    Searched by halves: another completion never makes a group less informative.
    """
    if share_of(MAX_GROUP_SIZE) < share - ROUNDING:
        return None
    low, high = _MIN_GROUP_SIZE, MAX_GROUP_SIZE
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if share_of(middle) >= share - ROUNDING else (middle + 1, high)
    return low
