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
    whole, size = linear_weights(workload, shape), _original_bytes(workload)
    formula = f"{whole.formula} - originals in host RAM" if size else whole.formula
    return whole._replace(
        expected_bytes=max(whole.expected_bytes - size, 0),
        upper_bytes=max(whole.upper_bytes - size, 0),
        formula=formula,
    )


_COMPARED_ROWS, _COMPARED_TOKENS, _COMPARED_BYTES = 8, 128, 20
"""Of `engine.logprobs.kl_from_base`: completions, tokens whose logits are there at once, and bytes for a word of each:
float32 logits, two log-softmaxes, an exp and a difference."""


def compared_rows(workload: Workload) -> int:
    """Returns the rows of one forward of an evaluation's KL."""
    return min(workload.micro_batch, _COMPARED_ROWS)


def compared_with_base(workload: Workload, shape: ModelShape) -> tuple[Term, ...]:
    """What an evaluation holds that takes the KL from a base model whose originals wait in host RAM: they are fetched,
    next to the weights that have learned and to the last states of completions under both."""
    originals, logits = _original_bytes(workload), _COMPARED_TOKENS * _COMPARED_BYTES * shape.vocab_size
    states = 2 * _COMPARED_ROWS * workload.completion_tokens * shape.hidden_size * workload.compute_bytes
    return (
        term("originals fetched for the KL", originals, "read from source", "numbers that have learned x b"),
        term("last states of both models", states, "read from source", "2 x 8 completions x H x b"),
        term("logits of both models", logits, "read from source", "128 V x 20"),
    )


def host_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns what has left the card: float32 weights and states of layers that rest, 16-bit originals."""
    masters = _resting_params(workload) * workload.whole_bytes if workload.parks_masters else 0
    states = ceil(unpaged_state_bytes(workload, shape)) * workload.parked_state_share
    return masters + round(states) + _original_bytes(workload)


def _resting_params(workload: Workload) -> int:
    return round(workload.whole_params * workload.resting_share)


def _original_bytes(workload: Workload) -> int:
    """Of layers that have learned or learn now: what never learned computes with its original."""
    share = min(workload.gradient_share + workload.resting_share, 1.0)
    return round(workload.whole_params * share) * weight_bytes(workload) if workload.parks_originals else 0
