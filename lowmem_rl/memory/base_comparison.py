"""What an evaluation's KL from the base model holds (`engine.logprobs.kl_from_base`): the last states of some
completions under both models, next to a layer's forward and then to the logits of a few tokens."""

from lowmem_rl.memory import dora
from lowmem_rl.memory.activations import forward_layer
from lowmem_rl.memory.parked import original_bytes
from lowmem_rl.memory.terms import Terms, matrix_in_use, term
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape

KL_COMPLETIONS = 8
"""Completions that are compared, in forwards of a training micro-batch."""
_LOGIT_TOKENS, _LOGIT_BYTES = 128, 20
"""Tokens of a completion whose logits are there at once, and bytes for a word of each: two log-softmaxes, their
difference, an exp and its product with that, in float32 (counted: tests/rehearsal/test_bytes.py)."""


def comparison_moments(workload: Workload, shape: ModelShape) -> tuple[Terms, Terms]:
    """Returns what is there while a layer computes, and with the logits. Originals that wait in host RAM are fetched,
    next to the weights that have learned."""
    tokens = min(workload.micro_batch, KL_COMPLETIONS) * workload.row_tokens
    states = 2 * KL_COMPLETIONS * workload.completion_tokens * shape.hidden_size * workload.compute_bytes
    logits = min(_LOGIT_TOKENS, workload.completion_tokens) * _LOGIT_BYTES * shape.vocab_size
    kept = (
        term("originals fetched for the KL", original_bytes(workload), "read from source", "numbers that learned x b"),
        term("last states of both models", states, "read from source", "2 x 8 completions x H x b"),
    )
    forward = forward_layer(workload, shape, tokens, "one layer's forward")
    layer = (forward, matrix_in_use(workload, shape), dora.norms(workload, shape))
    return (*kept, *layer), (*kept, term("logits of both models", logits, "read from source", "min(128, new) V x 20"))
