"""The rows of a rollout as TRL hands them to its loss: which keys, of what shape and type."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from torch import Tensor


class Batch(TypedDict):
    """A rollout, or a micro-batch of it; at run time the dict that TRL or Unsloth makes.

    Shapes: R rows, group by group; P prompt tokens, padded on the left; C completion tokens, padded on the right.
    Log-probabilities are in nats, (R, C) float32; with Unsloth's `max_left_pad` they are (R, C + max_left_pad), and a
    row's begin earlier by the padding that its prompt lacks.
    """

    prompt_ids: Tensor
    """(R, P) int64."""
    prompt_mask: Tensor
    """(R, P) int64, 0 for padding."""
    completion_ids: Tensor
    """(R, C) int64."""
    completion_mask: Tensor
    """(R, C) int64, 0 for padding and for tokens left out of the loss."""
    advantages: Tensor
    """(R,) float32."""
    num_items_in_batch: Tensor
    """() int64: completion tokens of the whole rollout, which the loss divides by."""
    old_per_token_logps: NotRequired[Tensor]
    """Under the policy that sampled, if a rollout is used for several steps."""
    ref_per_token_logps: NotRequired[Tensor]
    """Under the reference of a KL penalty."""
    sampling_per_token_logps: NotRequired[Tensor]
    """From vLLM, or from our sampler if the update compares them."""
    importance_sampling_ratio: NotRequired[Tensor]
    """(R, C) or (R, 1) float32: correction for vLLM's other arithmetic."""
    kept_row: NotRequired[Tensor]
    """(R,) int64, on the CPU: the row's number among the kept states of the rollout (`engine.kept_states`)."""
    max_left_pad: NotRequired[Tensor]
    """(R, 1) int64, on the CPU: the longest padding of a prompt, the same number in each row. From Unsloth."""
    tokens: NotRequired[int]
    """Ours, of a micro-batch: its completion tokens, a number that is known on the host without waiting."""
    share: NotRequired[float]
    """Ours, of a micro-batch under a KL penalty: the factor on its loss, unless it is 1. On the advantages it would not
    reach the KL term. The same for all such micro-batches of a step."""


def row_tensors(batch: Batch) -> dict[str, Tensor]:
    """Returns the tensors with one entry a row, (R, ...); the other values belong to the whole rollout."""
    rows = len(batch["advantages"])
    return {k: value for k, value in batch.items() if isinstance(value, Tensor) and value.dim() and len(value) == rows}


def take_rows(batch: Batch, rows: Tensor) -> Batch:
    """Returns the batch with the rows numbered `rows` (n,) alone."""
    return with_values(batch, {key: value[rows] for key, value in row_tensors(batch).items()})


def with_values(batch: Batch, values: Mapping[str, Any]) -> Batch:
    """Returns a copy with other values for some keys."""
    return cast(Batch, {**batch, **values})
