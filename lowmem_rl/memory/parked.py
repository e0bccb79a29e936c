"""Whole weights that learn, rest and wait: float32 while they learn, 16 bit while they rest, the rest in host RAM.

With M numbers in D blocks, BAdam (arXiv 2404.02827) needs 2M + 16M/D bytes: 16-bit weights, and of one block a float32
copy, a gradient and two moments. So does a run here without a reference: a block that has not learned computes with its
original, one that has learned with its rounding, the one that learns with casts that autocast keeps, and the originals
of the last two are in host RAM. With a reference in 16 bit they stay: 2M + 2M v/D + 18M/D after v other blocks have
learned.
"""

from math import ceil

from lowmem_rl.memory.terms import Term, linear_weights, term, unpaged_state_bytes, weight_bytes
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape


def resting_copies(workload: Workload) -> Term:
    """What layers compute with that have learned and rest, while their float32 weights are in host RAM."""
    size = _resting_params(workload) * workload.compute_bytes if workload.parks_masters else 0
    return term("16-bit copies of resting layers", size, "read from source", "numbers that have learned and rest x b")


def linear_weights_left(workload: Workload, shape: ModelShape) -> Term:
    """The matrices after loading, without originals that are in host RAM."""
    whole, size = linear_weights(workload, shape), original_bytes(workload)
    formula = f"{whole.formula} - originals in host RAM" if size else whole.formula
    return whole._replace(
        expected_bytes=max(whole.expected_bytes - size, 0),
        upper_bytes=max(whole.upper_bytes - size, 0),
        formula=formula,
    )


def host_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns what has left the card: float32 weights and states of layers that rest, 16-bit originals."""
    masters = _resting_params(workload) * workload.whole_bytes if workload.parks_masters else 0
    states = ceil(unpaged_state_bytes(workload, shape)) * workload.parked_state_share
    return masters + round(states) + original_bytes(workload)


def _resting_params(workload: Workload) -> int:
    return round(workload.whole_params * workload.resting_share)


def original_bytes(workload: Workload) -> int:
    """Returns the bytes of originals in host RAM, of layers that have learned or learn now.

    What never learned computes with its original.
    """
    share = min(workload.gradient_share + workload.resting_share, 1.0)
    return round(workload.whole_params * share) * weight_bytes(workload) if workload.parks_originals else 0
