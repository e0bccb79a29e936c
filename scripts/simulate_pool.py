"""Prints the table of `lowmem_rl/memory/pool_shares.py`: training steps on a simulated allocator, two minutes of CPU.

Each entry is the median of two models and two batch shapes: rows of one length, and of varying lengths in three
orders, whose worst is the upper value. The last line is what rollouts leave of their cache, median and most.
"""

from itertools import product
from statistics import median

from lowmem_rl.memory.generate_pool import share_of_cache
from lowmem_rl.memory.pool_shares import KINDS, Kind, Shares, kind_workload
from lowmem_rl.memory.simulated_pool import share_at_one_length, shares_at_varying_lengths
from lowmem_rl.models.lookup import load_shape

MODELS = ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct")
BATCHES = ((8, 256, 512), (8, 512, 1024))
"""Rows, prompt tokens, completion tokens."""
ROLLOUTS = (*BATCHES, (32, 256, 512))


def shares_of(kind: Kind) -> Shares:
    """Returns the shares of one kind of step."""
    one, medians, worst = [], [], []
    for model, batch in product(MODELS, BATCHES):
        workload, shape = kind_workload(kind, *batch), load_shape(model)
        varying = shares_at_varying_lengths(workload, shape)
        one.append(share_at_one_length(workload, shape))
        medians.append(median(varying))
        worst.append(max(varying))
    return Shares(*(round(median(found), 2) for found in (one, medians, worst)))


def cache_shares() -> tuple[float, float]:
    """Returns the median and the most of what rollouts leave, over their cache."""
    kind = Kind("plain", "full", "plain", False)
    shares = [
        share_of_cache(kind_workload(kind, *rollout), load_shape(model)) for model, rollout in product(MODELS, ROLLOUTS)
    ]
    return round(median(shares), 2), round(max(shares), 2)


if __name__ == "__main__":
    for kind in KINDS:
        fields = kind if kind.is_eager else kind[:-1]
        print(f"    Kind{tuple(fields)!r}: Shares{tuple(shares_of(kind))!r},".replace("'", '"'), flush=True)
    print(f"CACHE_SHARE, CACHE_SHARE_MOST = {cache_shares()}")
