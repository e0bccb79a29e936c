"""What the driver counts in addition to tensors: the CUDA context and the allocator's slack; host memory and disk."""

from collections.abc import Sequence

from lowmem_rl.memory import lowmem_sampler, parked, pool_shares, terms
from lowmem_rl.memory.activations import layer_of, logit_width
from lowmem_rl.memory.terms import Grade, Term, expected_sum, term, upper_sum
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import GIB

CONTEXT = "CUDA context"
SLACK = "allocator slack"
_PROGRAM_NAME = "Python and libraries"
AROUND_THE_POOL = (CONTEXT, _PROGRAM_NAME)
OUTSIDE_TENSORS = (*AROUND_THE_POOL, SLACK)
_TURING_CONTEXT = (int(0.14 * GIB), int(0.3 * GIB))
"""T4: 141 MiB between process and reserved memory in 79 runs (fitcheck-llm 0.3.1)."""
_NEWER_CONTEXT = (int(0.5 * GIB), int(0.8 * GIB))
"""Ampere and later: more kernels and cuBLAS workspaces; 0.3 to 0.75 GiB in reports."""
_HOST_PROGRAM = 4 * GIB
"""With a GPU: the program with CUDA's libraries, and a shard of weights on its way to the card; an assumption."""
PROGRAM = (int(1.3 * GIB), int(2.0 * GIB))
"""On a CPU: Python with PyTorch, transformers and Unsloth loaded."""


def context(card: Card | None) -> Term:
    """Kernels and workspaces outside PyTorch's pool; on a CPU the program itself."""
    if card is None:
        return term(_PROGRAM_NAME, PROGRAM[0], "assumed", "constant", upper=PROGRAM[1])
    is_old = card.compute_capability < (8, 0)
    low, high = _TURING_CONTEXT if is_old else _NEWER_CONTEXT
    grade: Grade = "measured elsewhere" if is_old else "assumed"
    return term(CONTEXT, low, grade, "by generation of the card", upper=high)


CHAIN_BYTES, STALE = 14.0, 0.6
"""Plain and fused losses pass whole logits through blocks of 14 bytes a logit, in which a layer has no room for 0.6 of
its blocks (fms-acceleration, A100: 14.07 bytes and 0.6, from two vocabularies; LLaMA-Factory's held-out runs agree).
The 14 are log-softmax and two gradients in float32, and the logits in 16 bit; float32 models have no such copy."""


def slack(workload: Workload, shape: ModelShape, dynamic: Sequence[Term], card: Card | None, *, learning: bool) -> Term:
    """Cached blocks without use: rounding, and blocks of sizes that are not asked for again.

    A simulated allocator over the requests of a training step gives their share (`simulated_pool`).
    """
    if card is None:
        return term(SLACK, 0, "assumed", "none on a CPU")
    low, high = pool_shares.share(workload, learning=learning)
    expected = low * expected_sum(dynamic)
    upper = high * upper_sum(dynamic)
    if learning and not workload.expandable_segments:
        stale = _unused_blocks(workload, shape, dynamic)
        left, most_left = _left_by_generate(workload, shape, dynamic)
        expected, upper = max(expected, stale, left), max(upper + stale, most_left)
    formula = f"{low:.2f} x what comes and goes" + ("" if workload.expandable_segments else ", or the loss's blocks")
    return term(SLACK, expected, "read from source", formula, upper=upper, elastic=True)


def _unused_blocks(workload: Workload, shape: ModelShape, dynamic: Sequence[Term]) -> float:
    if workload.logits in ("chunked", "liger"):
        return 0.0
    layer = STALE * workload.tokens * layer_of(workload, shape).peak
    kept = expected_sum(one for one in dynamic if one.name == "activations kept")
    chain = _logit_blocks(workload, shape)
    return max(kept + chain + layer - expected_sum(dynamic), 0.0)


def _logit_blocks(workload: Workload, shape: ModelShape) -> float:
    """Returns the bytes of all blocks that whole logits pass through."""
    if workload.logits in ("chunked", "liger"):
        return 0.0
    narrow = 2 if workload.compute_bytes == 2 else 0
    width = logit_width(workload)
    if workload.logits == "selective":  # made in 16 bit first, whose block is free when the others are there
        width += narrow
    each = width if workload.logits in ("in-place", "kept") else max(CHAIN_BYTES - 2 + narrow, width)
    return each * workload.scored_tokens * shape.vocab_size


def _left_by_generate(workload: Workload, shape: ModelShape, dynamic: Sequence[Term]) -> tuple[float, float]:
    """Returns what a rollout of transformers' `generate` left, beyond what comes and goes: expected and most.

    Its blocks are too small for whole logits, and serve everything else. A tied head that the files hold, too, leaves a
    block that is large enough for both.
    """
    if (workload.loss, workload.stack, workload.rollout_engine) != ("grpo", "trl", "generate"):
        return 0.0, 0.0
    logits, cache = _logit_blocks(workload, shape), terms.rollout_cache_bytes(workload, shape)
    head = workload.compute_bytes * shape.vocab_size * shape.hidden_size if workload.tied_head_in_files else 0
    one = 4 * workload.scored_tokens * shape.vocab_size
    served = min(head // one * one, logits)
    passing = expected_sum(dynamic)
    expected, most = (
        max(max(share * cache, head) + logits - served - passing, 0.0)
        for share in (pool_shares.CACHE_SHARE, pool_shares.CACHE_SHARE_MOST)
    )
    return expected, most


def cut_to_card(slack: Term, others_bytes: int, card: Card | None) -> Term:
    """Returns the slack cut to what the card has left: PyTorch frees cached blocks before it fails."""
    if card is None or slack.expected_bytes <= (room := max(card.offered_bytes - others_bytes, 0)):
        return slack
    return slack._replace(expected_bytes=room)


def capped_to_card(parts: Sequence[Term], card: Card | None) -> tuple[Term, ...]:
    """Returns the terms of a moment with its slack cut to what the card has left."""
    others = expected_sum(one for one in parts if one.name != SLACK)
    return tuple(cut_to_card(one, others, card) if one.name == SLACK else one for one in parts)


def host_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns the host memory a run takes: the program, offloaded inputs, kept states, one shard while loading."""
    offloaded = terms.backward_layers(workload, shape) * workload.tokens * shape.hidden_size * workload.compute_bytes
    learning = round(terms.learned_bytes(workload, shape) * workload.gradient_share)
    undone = learning if learning > terms.UNDO_BYTES else 0  # before the first step
    measured = terms.summed_host_bytes(workload) + terms.compared_host_bytes(workload)
    activations = offloaded if workload.checkpointing == "unsloth" else 0
    states = 0 if workload.keeps_on_card else lowmem_sampler.kept_states(workload, shape).expected_bytes
    return _HOST_PROGRAM + undone + measured + parked.host_bytes(workload, shape) + activations + states


def disk_bytes(workload: Workload, shape: ModelShape) -> int:
    """Returns the disk a run takes: the weights as they are fetched, and two copies of what was learned.

    And of kept states, if checkpoints are made before a rollout's last step. Whole weights are there in 16 bit, too.
    """
    quantised = workload.method == "qlora" and (workload.dynamic_checkpoint or shape.quantised != "no")
    in_4_bit = sum(part(workload, shape).expected_bytes for part in (terms.linear_weights, terms.other_weights))
    learned = terms.learned_bytes(workload, shape)
    if workload.old_logprob_pass:
        learned += lowmem_sampler.kept_states(workload, shape).expected_bytes
    fetched = shape.file_bytes or (in_4_bit if quantised else 2 * shape.num_params)
    return fetched + 2 * learned + 2 * workload.whole_params
