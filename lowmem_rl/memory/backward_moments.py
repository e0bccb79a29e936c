"""What is there at once in the loss and in the backward pass of the layers, moment by moment, from top to bottom.

Counted under fake tensors by the oracle in the tests: plain transformers, PEFT and TRL, 2026-12-01.
"""

from collections.abc import Iterator

from lowmem_rl.memory import activations, dora, terms
from lowmem_rl.memory.plain_layer import mlp_bytes, residual_bytes
from lowmem_rl.memory.terms import Terms, term
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.shape import ModelShape


def backward_moments(workload: Workload, shape: ModelShape) -> Iterator[Terms]:
    """Yields what is there at once: in the loss, in the top layer, and for whole weights at the bottom."""
    copies = (terms.autocast_copies(workload, shape),) if terms.narrows_weights(workload) else ()
    kept = (activations.kept_activations(workload, shape), *(copies if workload.checkpointing == "none" else ()))
    yield from _in_the_loss(workload, shape, kept)
    yield from _in_the_top_layer(workload, shape, kept)
    if terms.trains_whole(workload) and not workload.accumulated:
        yield from _at_the_bottom(workload, shape)


def _in_the_loss(workload: Workload, shape: ModelShape, kept: Terms) -> Iterator[Terms]:
    """Copies of what learns are there until the forward pass ends, those of what is kept for the backward pass stay."""
    chunk = activations.spare_chunk(workload, shape)
    top = (activations.saved_at_top(workload, shape),) if workload.checkpointing == "none" else ()
    yield *kept, *top, activations.loss(workload, shape), chunk
    if (copies := terms.cached_copies(workload, shape)).expected_bytes and workload.checkpointing != "none":
        yield *kept, copies, activations.scoring(workload, shape), chunk


def _in_the_top_layer(workload: Workload, shape: ModelShape, kept: Terms) -> Iterator[Terms]:
    if workload.logits == "held":
        kept = (*kept, activations.held_logits(workload, shape))
    if not workload.accumulated and (size := terms.embedding_gradient(workload, shape)):
        kept = (*kept, term("head's gradient", size, "measured here", "V H b"))
    yield *kept, activations.layer(workload, shape)
    if (matrix := terms.matrix_in_use(workload, shape)).expected_bytes:
        yield *kept, activations.layer_at_matrix(workload, shape), matrix
    if workload.use_dora:
        yield *kept, activations.layer_finding_norms(workload, shape), dora.norms(workload, shape)


def _at_the_bottom(workload: Workload, shape: ModelShape) -> Iterator[Terms]:
    """The lowest layer that learns: at its worst moment, when of its own gradients the last matrix's alone is made,
    then after its MLP, when all are; and the embeddings. A tied head's gradient is not added to theirs in place: both
    and the sum are there at once."""
    made, embeddings = terms.gradients(workload, shape), terms.embedding_gradient(workload, shape)
    in_layers = made._replace(expected_bytes=made.expected_bytes - embeddings)
    late = terms.late_gradients(workload, shape)
    yield in_layers._replace(expected_bytes=in_layers.expected_bytes - late), activations.layer(workload, shape)
    each = activations.layer_of(workload, shape).saved + 4 * shape.hidden_size
    size = workload.tokens * max(each - 4 * mlp_bytes(workload) * shape.intermediate_size, 0)
    yield in_layers, term("attention's backward", size, "measured here", "T (what a layer saves - 4bI + 4H)")
    if embeddings:
        unsummed = 2 * embeddings if shape.tied_embeddings else 0
        size = unsummed + workload.tokens * shape.hidden_size * residual_bytes(workload)
        yield made, term("embeddings' backward", size, "measured here", "T H b [+ 2 V H b, tied]")
