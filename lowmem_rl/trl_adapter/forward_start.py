"""Starts forward passes at the lowest layer that learns, with the hidden states that were kept while sampling.

The states travel by row number: each row of a rollout has one (`Batch.kept_row`), whichever micro-batch it is in, and
each forward takes those of its rows. Unsloth's kernels, on a GPU, order tokens in their own way: there each forward
finds them by its ids (`engine.states_by_ids`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.kept_states import KeptStates, StateRecorder
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.states_by_ids import StatesByIds
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trl_adapter.gradient_start import LayerStart

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`


class KeptStatesMixin(TrlTrainer):
    """Holds what was kept of the present rollout; without it, whole forward passes."""

    config: RunConfig
    policy: Policy
    layer_start: LayerStart
    kept: KeptStates | None = None
    kept_rows: Tensor | None = None
    """Numbers of the rows of the next forward."""
    rows_sampled = 0
    """Rows of the present rollout, over all rounds of sampling."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        raise NotImplementedError

    def begin_keeping(self) -> None:
        """Drops what was kept: another rollout begins."""
        self.kept = self.kept_rows = None
        self.rows_sampled = 0

    def recorder(self) -> StateRecorder | None:
        """Returns what collects the states of a round; None if none are to be kept, or no layer below is frozen."""
        if not self.config.keeps_states:
            return None
        schedule = LayerSchedule.of(self.config, self.model.config.num_hidden_layers)
        # A layer that rests may have learned: the reference lacks what it has, and an adapter drops out in training.
        must_be_base = self.config.grpo.beta > 0 or self.config.adapter.dropout > 0
        layer = (schedule.lowest_until if must_be_base else schedule.lowest_at)(self.step + 1)
        return StateRecorder(layer, on_card=self._on_card) if layer else None

    def keep(self, rows: int, found: KeptStates | None) -> None:
        """Adds the states of a round of sampling; a rollout of which some are missing has none."""
        if not self.config.keeps_states:
            return
        first, self.rows_sampled = self.rows_sampled, self.rows_sampled + rows
        self.kept_rows = torch.arange(first, self.rows_sampled)
        if first and self.kept is not None and found is not None:
            self.kept = self.kept.joined(found)
            self.kept = self.kept.parked(self.policy.model.device, on_card=self._on_card)
        else:
            self.kept = None if first else found

    @property
    def _on_card(self) -> bool:
        return self.config.memory.kept_states == "card"

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        score = super()._get_per_token_logps_and_entropies
        prompt, found = input_ids.shape[1] - logits_to_keep, []
        if self.kept is None or self.kept_rows is None:
            return score(model, input_ids, attention_mask, logits_to_keep, batch_size, *args, **kwargs)
        if self.policy.device.is_gpu:
            with self._finding(input_ids, attention_mask[:, :prompt]):
                return score(model, input_ids, attention_mask, logits_to_keep, batch_size, *args, **kwargs)
        self.layer_start.layer = self.kept.layer
        for rows in torch.arange(len(input_ids)).split(batch_size or len(input_ids)):
            states = self.kept.of_rows(self.kept_rows[rows], prompt, logits_to_keep)
            with self.layer_start.reading(states):
                part = input_ids[rows], attention_mask[rows], logits_to_keep, None
                found.append(score(model, *part, *args, **kwargs))
        return found[0] if len(found) == 1 else _together(found)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """On a GPU Unsloth makes its forward passes here; they start with what was kept."""
        if self.kept is None or not self.policy.device.is_gpu:
            return super().compute_loss(model, inputs, *args, **kwargs)
        ids = torch.cat((inputs["prompt_ids"], inputs["completion_ids"]), dim=1)
        with self._finding(ids, inputs["prompt_mask"]):
            return super().compute_loss(model, inputs, *args, **kwargs)

    @contextmanager
    def _finding(self, ids: Tensor, prompt_mask: Tensor) -> Iterator[None]:
        """Lets forward passes over these rows, ids (R, P + C) and prompt mask (R, P), find their states."""
        if self.kept is None or self.kept_rows is None or self.layer_start.is_finding:
            yield
            return
        self.layer_start.layer = self.kept.layer
        pad = self.processing_class.pad_token_id
        states = StatesByIds.of_batch(self.kept, self.kept_rows, ids, prompt_mask, pad)
        with self.layer_start.finding(states.of_forward) as began_there:
            yield
        if began_there:
            self._metrics["train"]["kept_states_found"].append(sum(began_there) / len(began_there))


def _together(parts: Sequence[tuple[Tensor, Tensor | None, Any]]) -> tuple[Tensor, Tensor | None, None]:
    """Returns log-probs and entropies of all parts."""
    log_probs, entropies, _ = zip(*parts, strict=True)
    return torch.cat(log_probs), None if entropies[0] is None else torch.cat(entropies), None
