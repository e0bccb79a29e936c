"""Reads each distinct prompt of a micro-batch once, with its gradient, and the completions after it.

A group's rows differ only in their completions: G (P + C) tokens become P + G C. The gradient flows back through the
prompt's keys and values, which all its rows share. Prefix Grouper shows that this is exact (arXiv 2506.05433); on a
GPU Unsloth's kernels do it. Here it is transformers' own cache, for models that Unsloth leaves as they are.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowmem_rl.grpo.micro_batches import BatchPlan
from lowmem_rl.trl_adapter.gradient_start import LayerStart

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`

LogProbs = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probs and entropies of the completions' tokens (rows, completion tokens), and no auxiliary loss."""


class PrefixSharingMixin(TrlTrainer):
    """Replaces TRL's forward by the shared one if it saves tokens."""

    batch_plan: BatchPlan
    layer_start: LayerStart

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> LogProbs:
        prompt = input_ids.shape[1] - logits_to_keep
        rows = torch.cat((attention_mask[:, :prompt], input_ids[:, :prompt]), dim=1)
        distinct, which = torch.unique(rows, dim=0, return_inverse=True)
        if not self.batch_plan.shares_prompts or not _is_shared_here(self, len(rows), distinct[:, :prompt]):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        start, states = self.layer_start, self.layer_start.states
        with self.accelerator.autocast():
            with start.reading(None if states is None else states[_firsts(which, len(distinct)), : prompt - 1]):
                cache = _read_prompts(model, distinct[:, prompt:], distinct[:, :prompt])
            cache.batch_select_indices(which)
            with start.reading(None if states is None else states[:, prompt - 1 :]):
                return _read_completions(model, input_ids[:, prompt - 1 :], attention_mask, cache)


def _is_shared_here(trainer: Any, rows: int, masks: Tensor) -> bool:
    """True if prompts repeat, have a token before the last, and may be cached: recomputation writes no cache."""
    repeats = len(masks) < rows and int(masks.sum(1).min()) > 1
    return repeats and torch.is_grad_enabled() and not trainer.args.gradient_checkpointing


def _firsts(which: Tensor, count: int) -> Tensor:
    """Returns the first row of each of `count` distinct prompts, of which row i has prompt `which` (rows,)[i]."""
    rows = torch.arange(len(which), device=which.device)
    return which.new_full((count,), len(which)).scatter_reduce_(0, which, rows, "amin")


def _read_prompts(model: Any, ids: Tensor, mask: Tensor) -> Any:
    """Returns the keys and values of all but the prompts' last tokens, which start the completions' rows."""
    from transformers import DynamicCache

    backbone = model.get_base_model().base_model
    found = backbone(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], past_key_values=DynamicCache(), use_cache=True)
    return found.past_key_values


def _read_completions(model: Any, ids: Tensor, attention_mask: Tensor, cache: Any) -> LogProbs:
    tokens = ids.shape[1] - 1
    labels = ids.masked_fill(attention_mask[:, -ids.shape[1] :] == 0, -100)
    labels[:, 0] = -100
    found = model(
        input_ids=ids, attention_mask=attention_mask, past_key_values=cache, labels=labels, fused_lm_head=True
    )
    return found.log_probs[:, -tokens:], found.entropy[:, -tokens:], None
