"""The trainer's step: learns from the slot that is due and, where memory runs out, takes the optimizer step anew.

TRL calls `training_step` once for each of its micro-batches and divides by their number. Here such a slot may stand
empty, because other rows could be left out, or be cut finer than TRL counts, because memory ran out.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowmem_rl.engine.out_of_memory import OutOfMemory, tried
from lowmem_rl.training.batching import SHARE, Batch, Cut, Layout, cut
from lowmem_rl.training.recovery import Recovery
from lowmem_rl.training.redo import StepStart, make_whole

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`


class Learning(TrlTrainer):
    """What the trainer does with a rollout. Without a `recovery` an error for lack of memory passes."""

    layout: Layout
    recovery: Recovery | None
    rollout: Batch
    """What was sampled last, all rows of it: cut into `_buffered_inputs`."""
    sampled_after: int
    """Optimizer steps that were done when it was: the seed of its shuffle."""
    step_start: StepStart
    _step: int
    _buffered_inputs: list[Batch | None] | None
    """The rollout's micro-batches, `layout.cuts_each_into` of them to a slot, None where none is needed."""
    current_gradient_accumulation_steps: float

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Samples where that is due, and learns from the slot that is; where memory runs out, from the step's first on.

        What is cut finer lies in other slots: all gradients of the step are taken again.
        """
        if not model.training:
            model.train()
        if self.recovery is not None:
            self.recovery.step = self.state.global_step
        self._sample_if_due(inputs)
        start, first = self._step, self._step - self._step % self.args.gradient_accumulation_steps
        if start == first:
            self.step_start = StepStart.of(self._metrics["train"], self.accelerator.device)
        while isinstance(found := self._tried(partial(self._learn, model, start, num_items_in_batch)), OutOfMemory):
            self._cut_finer(model, found.why)
            start = first
        loss = found if start == self._step else found - self.step_start.told
        self.step_start.told += loss
        self._step += 1
        return loss

    def _sample_if_due(self, generation_batch: Any) -> None:
        raise NotImplementedError

    def lay_out(self, rollout: Batch, sampled_after: int) -> Cut:
        """Cuts a rollout for the slots that come, in the same way each time."""
        self.rollout, self.sampled_after = rollout, sampled_after
        found = cut(rollout, self.layout, seed=sampled_after)
        self._buffered_inputs = list(found.slots)
        return found

    def _tried(self, call: Callable[[], Tensor]) -> Tensor | OutOfMemory:
        return call() if self.recovery is None else tried(call)

    def _learn(self, model: Any, start: int, num_items_in_batch: Any) -> Tensor:
        """Adds the gradients of the micro-batches in the slots from `start` to the present one; returns their loss."""
        loss, step = torch.zeros((), device=self.accelerator.device), self._step
        accumulated = self.current_gradient_accumulation_steps
        try:
            for batch in self._micro_batches(start):
                if SHARE in batch:
                    self.current_gradient_accumulation_steps = accumulated / batch[SHARE]
                loss += super().training_step(model, batch, num_items_in_batch)
                self.step_start.weigh(self._metrics["train"], int(batch["completion_mask"].sum()))
                self._step = step  # TRL counts its calls; a slot counts once
        finally:
            self.current_gradient_accumulation_steps = accumulated
        return loss

    def _micro_batches(self, start: int) -> Iterator[Batch]:
        assert self._buffered_inputs is not None
        each, places = self.layout.cuts_each_into, self.args.steps_per_generation
        due = self._buffered_inputs[start % places * each : (self._step % places + 1) * each]
        return filter(None, due)

    def _cut_finer(self, model: Any, why: str) -> None:
        """Goes back to the beginning of the step, with fewer rows in each micro-batch of the rollout."""
        assert self.recovery is not None
        rows = self.recovery.half("backward", self.layout.rows_together, why)
        self.layout = self.layout.finer(rows)
        self.lay_out(self.rollout, self.sampled_after)
        model.zero_grad()
        self.step_start.restore(self._metrics["train"], self.accelerator.device)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Leaves a micro-batch as it is."""
        return generation_batch if self.model.training else super()._prepare_inputs(generation_batch)

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
        """Scores a rollout in parts of `batch_size` rows, fewer where memory runs out; in the loss there is no size."""
        score = partial(super()._get_per_token_logps_and_entropies, model, input_ids, attention_mask, logits_to_keep)
        if self.recovery is None or batch_size is None:
            return score(batch_size, *args, **kwargs)

        def in_parts(rows: int) -> Any:
            with self._unsloths_parts(-(-len(input_ids) // rows)):
                return score(rows, *args, **kwargs)

        return self.recovery.logprobs.run(in_parts, batch_size)

    @contextlib.contextmanager
    def _unsloths_parts(self, count: int) -> Iterator[None]:
        """Lets Unsloth score in `count` parts at least: it reads no `batch_size` (`mini_batches_of_a_rollout`)."""
        planned = getattr(self.args, "unsloth_grpo_mini_batch", None)
        if planned is None:
            yield
            return
        self.args.unsloth_grpo_mini_batch = max(count, planned)
        try:
            yield
        finally:
            self.args.unsloth_grpo_mini_batch = planned

    def create_optimizer(self, model: Any = None) -> Any:
        """Makes its step happen once or not at all where memory runs out."""
        optimizer = super().create_optimizer(model)
        if self.recovery is not None:
            make_whole(optimizer, self.recovery.again, self.recovery.went_on)
        return optimizer
