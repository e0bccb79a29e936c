"""The trainer's step: learns from the slot that is due; if memory runs out, its work is done again.

TRL calls `training_step` once for each of its micro-batches and divides by their number. Here such a slot may stand
empty, because other rows could be left out, or be cut finer than TRL counts, because memory ran out.

Every part of a step is in one of four regions, each of which can be done again:
- a round of sampling (`whole_round`): what was sampled and scored stays, the rest is computed again;
- the gradient (`_learnt`): from the step's first slot on, with fewer rows in a micro-batch;
- clipping (`_clip_grad_norm`) and the optimizer's step (`redo.make_whole`): on the gradient, taken again if it may
  have been changed half way;
- the step's row of metrics (`write_row`): until transformers has begun it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.unsloth_shortcuts import failed_allocations, given_up, unshared_groups
from lowmem_rl.grpo.micro_batches import SHARE, TOKENS, Batch, BatchPlan, MicroBatches, cut
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.oom_retry import StepSnapshot, make_step_atomic
from lowmem_rl.trl_adapter.call_replay import ReplayedCalls

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes in `trainer.trainer_class`

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotLoss:
    """Loss of what was learnt from: what is new to the trainer, and all that it will have been given in the step."""

    loss: Tensor
    given: Tensor


class UpdateMixin(TrlTrainer):
    """What the trainer does with a rollout. Without a `recovery` an error for lack of memory passes."""

    layout: BatchPlan
    recovery: OomPolicy | None
    kept: ReplayedCalls
    rollout: Batch
    """What was sampled last, all rows of it: cut into `_buffered_inputs`."""
    sampled_after: int
    """Optimizer steps that were done when it was: the seed of its shuffle."""
    step_start: StepSnapshot
    given_up: frozenset[str]
    """What Unsloth no longer does, as far as is known (`shortcuts`)."""
    shortages_caught = 0
    """Allocations of the present step that failed inside Unsloth, which helped itself."""
    learn_again: Callable[[], SlotLoss]
    """Takes the gradient of the present step once more, from its first slot to the last one that was learnt from."""
    _step: int
    _globalstep_last_logged: int
    _buffered_inputs: list[Batch | None] | None
    """The rollout's micro-batches, `layout.cuts_each_into` of them to a slot, None where none is needed."""
    current_gradient_accumulation_steps: float

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Samples where that is due, and learns from the slot that is; if memory runs out, from the step's first on.

        What is cut finer lies in other slots: all gradients of the step are taken again.
        """
        if not model.training:
            model.train()
        if self.recovery is not None:
            self.recovery.step = self.state.global_step
        self._sample_if_due(inputs)
        slot, first = self._step, self._step - self._step % self.args.gradient_accumulation_steps
        if slot == first:
            self.step_start = StepSnapshot.of(self._metrics["train"])
        self.learn_again = partial(self._learnt, model, range(first, slot + 1), num_items_in_batch, is_again=True)
        found = self._learnt(model, range(slot, slot + 1), num_items_in_batch)
        self.step_start.given = found.given
        self._step += 1
        return found.loss

    def _sample_if_due(self, generation_batch: Any) -> None:
        raise NotImplementedError

    def whole_round(self, sample: Callable[[], T]) -> T:
        """Returns what `sample` returns; if memory runs out it begins again, with what was sampled and scored."""
        self.kept.forget()
        before, seen = StepSnapshot.of(self._metrics["train"]), self.state.num_input_tokens_seen
        while isinstance(found := self._tried(sample), OutOfMemory):
            assert self.recovery is not None
            self.recovery.again("advantages" if self.kept.has_completions else "rollout", found.why)
            before.restore(self._metrics["train"])
            self.state.num_input_tokens_seen = seen
            self.kept.begin_again()
        self.kept.forget()
        return found

    def lay_out(self, rollout: Batch, sampled_after: int) -> MicroBatches:
        """Cuts a rollout for the slots that come, in the same way each time."""
        self.rollout, self.sampled_after = rollout, sampled_after
        found = cut(rollout, self.layout, seed=sampled_after)
        self._buffered_inputs = list(found.slots)
        return found

    def _tried(self, call: Callable[[], T]) -> T | OutOfMemory:
        return call() if self.recovery is None else catch_oom(call)

    def _learnt(self, model: Any, slots: range, num_items_in_batch: Any, *, is_again: bool = False) -> SlotLoss:
        """Adds the gradients of `slots`; if memory runs out, those of the whole step, with fewer rows together."""
        first = slots.stop - 1 - (slots.stop - 1) % self.args.gradient_accumulation_steps
        learn = partial(self._learn, model, slots, num_items_in_batch)
        again = partial(self._learn_from_the_start, model, range(first, slots.stop), num_items_in_batch)
        found = self._tried(again if is_again else learn)
        while isinstance(found, OutOfMemory):
            assert self.recovery is not None
            rows = self.recovery.half("backward", self.layout.rows_together, found.why)
            self.layout = self.layout.finer(rows)
            found = self._tried(again)
        return found

    def _learn_from_the_start(self, model: Any, slots: range, num_items_in_batch: Any) -> SlotLoss:
        """Goes back to the beginning of the step, whose slots are cut as the layout says now."""
        model.zero_grad()
        self.lay_out(self.rollout, self.sampled_after)
        self.step_start.restore(self._metrics["train"])
        return self._learn(model, slots, num_items_in_batch)

    def _learn(self, model: Any, slots: range, num_items_in_batch: Any) -> SlotLoss:
        """Adds the gradients of the micro-batches in the slots."""
        loss, step = torch.zeros((), device=self.accelerator.device), self._step
        accumulated = self.current_gradient_accumulation_steps
        try:
            for batch in self._micro_batches(slots):
                self._step = slots.stop - 1  # TRL counts its calls; a slot counts once, when it is over
                if SHARE in batch:
                    self.current_gradient_accumulation_steps = accumulated / batch[SHARE]
                learn = partial(super().training_step, model, batch, num_items_in_batch)
                loss += self._with_shortages_counted(learn)
                self.step_start.weigh(self._metrics["train"], batch[TOKENS])
        finally:
            self._step = step
            self.current_gradient_accumulation_steps = accumulated
        return self._learnt_of(loss, is_whole=slots.start % self.args.gradient_accumulation_steps == 0)

    def _learnt_of(self, loss: Tensor, *, is_whole: bool) -> SlotLoss:
        """Says what of the loss the trainer does not have yet; `is_whole` is that of all slots of the step so far."""
        given = self.step_start.given
        if given is None:
            return SlotLoss(loss, loss)
        return SlotLoss(loss - given, loss) if is_whole else SlotLoss(loss, given + loss)

    def _with_shortages_counted(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns, and counts the failed allocations that it has caught."""
        before = failed_allocations()
        found = call()
        self.shortages_caught += failed_allocations() - before
        return found

    def _micro_batches(self, slots: range) -> Iterator[Batch]:
        assert self._buffered_inputs is not None
        each, places = self.layout.cuts_each_into, self.args.steps_per_generation
        begin = slots.start % places
        due = self._buffered_inputs[begin * each : (begin + len(slots)) * each]
        return filter(None, due)

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clips; if memory runs out, on a gradient that is taken again: it may be clipped or unscaled in part."""
        clip = partial(super()._clip_grad_norm, model)
        while isinstance(found := self._tried(clip), OutOfMemory):
            assert self.recovery is not None
            self.recovery.again("optimizer", found.why)
            self._forget_unscaling()
            self.learn_again()
        return found

    def _forget_unscaling(self) -> None:
        """Lets the gradient scaler, which counts each gradient as unscaled once, meet a gradient that is new."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update(self.accelerator.scaler.get_scale())

    def write_row(self, write: Callable[[], None]) -> None:
        """Lets transformers write the step's row, again if memory runs out before the first callback gets it."""
        is_over = self.state.global_step > self._globalstep_last_logged  # the end of an epoch passes here once more
        if is_over:
            self._note_scale()
            self._look_at_shortcuts()
        while isinstance(found := self._tried(write), OutOfMemory):
            assert self.recovery is not None
            if is_over and self.state.global_step == self._globalstep_last_logged:
                raise self.recovery.cannot_go_on("between", found.why)
            self.recovery.again("between", found.why)
        if is_over and self.recovery is not None:
            self.recovery.went_on()

    def _note_scale(self) -> None:
        """Puts aside for the step's row whether float16's scaler skipped it, and the scale that the next one has."""
        if self.accelerator.scaler is not None:
            self._metrics["train"]["optimizer_skipped"].append(float(self.accelerator.optimizer_step_was_skipped))
            self._metrics["train"]["loss_scale"].append(self.accelerator.scaler.get_scale())

    def _look_at_shortcuts(self) -> None:
        """Reports what Unsloth has given up in this step, and plans for it if its memory had run out."""
        now = given_up(self.model)
        news, self.given_up = sorted(now - self.given_up), now
        is_short, self.shortages_caught = self.shortages_caught > 0, 0
        if not news or self.recovery is None:
            return
        self._metrics["train"]["shortcuts_given_up"].append(float(len(news)))
        rows, lost = self.layout.rows_together, unshared_groups(self.model)
        if is_short and self.layout.keeps_groups and rows // self.layout.group_size in lost:
            self.layout = self.layout.after_sharing()
            while isinstance(found := self._tried(lambda: self.lay_out(self.rollout, self.sampled_after)), OutOfMemory):
                self.recovery.again("advantages", found.why)
        self.recovery.goes_without(news, rows, self.layout.rows_together, is_short=is_short)

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
        """Scores a rollout in parts of `batch_size` rows, fewer if memory runs out; in the loss there is no size."""
        score = partial(super()._get_per_token_logps_and_entropies, model, input_ids, attention_mask, logits_to_keep)
        if self.recovery is None or batch_size is None:
            return score(batch_size, *args, **kwargs)

        def in_parts(rows: int) -> Any:
            with self._unsloths_parts(-(-len(input_ids) // rows)):
                return self._with_shortages_counted(lambda: score(rows, *args, **kwargs))

        return self.kept.run(partial(self.recovery.logprobs.run, in_parts, batch_size))

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
        """Makes its step happen once or not at all if memory runs out."""
        optimizer = super().create_optimizer(model)
        if self.recovery is not None:
            make_step_atomic(optimizer, partial(self.recovery.again, "optimizer"))
        if self.accelerator.scaler is not None:
            # It makes its two numbers with the first loss: between them memory must not run out.
            self.accelerator.scaler.scale(torch.zeros((), device=self.accelerator.device))
            # torch's fused AdamW would look for overflows itself, and accelerate would take a step that was skipped
            # for one that was made: the schedule would go on.
            optimizer._step_supports_amp_scaling = False
        return optimizer
