"""The update: the micro-batches of an accumulation slot, forward and backward; on OOM the step is repeated.

TRL calls `training_step` once for each of its micro-batches and divides by their number. Here such a slot may be
empty, because other rows could be left out, or be cut finer than TRL counts, because memory ran out.

Every part of a step is in one of four regions, each of which can be repeated:
- a round of sampling (`sample_round`): what was sampled and scored is kept, the rest is computed again;
- the gradient (`_accumulate`): from the step's first slot on, with fewer rows in a micro-batch;
- clipping (`_clip_grad_norm`), what the hooks copy after it (`before_optimizer_step`) and the optimizer's step
  (`grpo.oom_retry`): on the gradient, computed again if it may have been changed in part;
- the step's row of metrics (`write_step_row`): until transformers has begun it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.unsloth_shortcuts import failed_allocations, given_up, unshared_groups
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.grpo.micro_batches import BatchPlan, MicroBatches, cut
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.oom_retry import StepSnapshot, atomic_step
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.call_replay import ReplayedCalls
from lowmem_rl.trl_adapter.sampler_check import SamplerCheckMixin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotLoss:
    """Loss (scalar): what is new to the trainer, and all that it will have been given in the step."""

    loss: Tensor
    given: Tensor


class UpdateMixin(SamplerCheckMixin):
    """What the trainer does with a rollout. Without an `oom_policy` an out-of-memory error passes."""

    hooks: Hooks
    batch_plan: BatchPlan
    oom_policy: OomPolicy | None
    calls: ReplayedCalls
    kept_rows: Tensor | None
    rollout: Batch
    """What was sampled last, all rows of it; split into `_buffered_inputs`."""
    sampled_after: int
    """Optimizer steps that were done when it was sampled: the seed of its shuffle."""
    step_start: StepSnapshot
    given_up: frozenset[str]
    """Shortcuts that Unsloth no longer takes (`unsloth_shortcuts`)."""
    ooms_caught = 0
    """Allocations of the present step that failed inside Unsloth, which recovered by itself."""
    repeat_gradient: Callable[[], SlotLoss]
    """Computes the gradient of the present step again, from its first slot to the present one."""
    cut = staticmethod(cut)
    _step: int
    _globalstep_last_logged: int
    _buffered_inputs: list[Batch | None] | None
    """The rollout's micro-batches, `batch_plan.cuts_each_into` of them a slot, None if none is needed."""
    current_gradient_accumulation_steps: float

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Samples a rollout if one is due, then runs the micro-batches of this accumulation slot.

        On OOM it restarts from the step's first slot: cut finer, rows are in other slots.
        """
        if not model.training:
            model.train()
        if self.oom_policy is not None:
            self.oom_policy.step = self.state.global_step
        self._sample_if_due(inputs)
        slot, first = self._step, self._step - self._step % self.args.gradient_accumulation_steps
        if slot == first:
            self.step_start = StepSnapshot.of(self._metrics["train"])
        whole = range(first, slot + 1)
        self.repeat_gradient = partial(self._accumulate, model, whole, num_items_in_batch, is_repeat=True)
        found = self._accumulate(model, range(slot, slot + 1), num_items_in_batch)
        self.step_start.given = found.given
        self._step += 1
        return found.loss

    def _sample_if_due(self, generation_batch: Any) -> None:
        raise NotImplementedError

    def sample_round(self, sample: Callable[[], T]) -> T:
        """Returns what `sample` returns; on OOM it is called again, with what was sampled and scored already."""
        self.calls.forget()
        before, seen = StepSnapshot.of(self._metrics["train"]), self.state.num_input_tokens_seen
        while isinstance(found := self._catch_oom(sample), OutOfMemory):
            assert self.oom_policy is not None
            self.oom_policy.retry("advantages" if self.calls.has_completions else "rollout", found.why)
            before.restore(self._metrics["train"])
            self.state.num_input_tokens_seen = seen
            self.calls.begin_again()
        self.calls.forget()
        return found

    def split_rollout(self, rollout: Batch, sampled_after: int) -> MicroBatches:
        """Splits a rollout into the micro-batches of its slots, in the same way each time."""
        self.rollout, self.sampled_after = rollout, sampled_after
        found = self.cut(rollout, self.batch_plan, seed=sampled_after)
        self.keep_micro_batches(list(found.slots))
        return found

    def keep_micro_batches(self, slots: list[Batch | None]) -> None:
        """Makes these the micro-batches that the next steps learn from."""
        self._buffered_inputs = slots

    def _catch_oom(self, call: Callable[[], T]) -> T | OutOfMemory:
        return call() if self.oom_policy is None else catch_oom(call)

    def _accumulate(self, model: Any, slots: range, num_items_in_batch: Any, *, is_repeat: bool = False) -> SlotLoss:
        """Adds the gradients of `slots`; on OOM those of the whole step, with fewer rows together."""
        first = slots.stop - 1 - (slots.stop - 1) % self.args.gradient_accumulation_steps
        run = partial(self._backward, model, slots, num_items_in_batch)
        repeat = partial(self._restart_step, model, range(first, slots.stop), num_items_in_batch)
        found = self._catch_oom(repeat if is_repeat else run)
        while isinstance(found, OutOfMemory):
            assert self.oom_policy is not None
            rows = self.oom_policy.halve_rows("backward", self.batch_plan.rows_together, found.why)
            self.batch_plan = self.batch_plan.finer(rows)
            found = self._catch_oom(repeat)
        return found

    def _restart_step(self, model: Any, slots: range, num_items_in_batch: Any) -> SlotLoss:
        """Returns to the beginning of the step, whose rows are split as the batch plan says now."""
        model.zero_grad()
        self.begin_comparing()
        self.split_rollout(self.rollout, self.sampled_after)
        self.step_start.restore(self._metrics["train"])
        return self._backward(model, slots, num_items_in_batch)

    def _backward(self, model: Any, slots: range, num_items_in_batch: Any) -> SlotLoss:
        """Adds the gradients of the micro-batches in the slots."""
        loss, step = torch.zeros((), device=self.accelerator.device), self._step
        accumulated = self.current_gradient_accumulation_steps
        try:
            for batch in self._micro_batches(slots):
                self._step = slots.stop - 1  # TRL counts its calls; a slot counts once, when it is over
                if "share" in batch:
                    self.current_gradient_accumulation_steps = accumulated / batch["share"]
                self.kept_rows, self.batch_read = batch.get("kept_row"), batch
                run = partial(super().training_step, model, batch, num_items_in_batch)
                with self.hooks.phase("backward"):
                    loss += self._counting_ooms(run)
                self.step_start.merge_token_means(self._metrics["train"], batch["tokens"])
        finally:
            self._step, self.batch_read = step, None
            self.current_gradient_accumulation_steps = accumulated
        given, is_whole = self.step_start.given, slots.start % self.args.gradient_accumulation_steps == 0
        if given is None:
            return SlotLoss(loss, loss)
        return SlotLoss(loss - given, loss) if is_whole else SlotLoss(loss, given + loss)

    def _counting_ooms(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns, and counts the failed allocations that it has caught itself."""
        before = failed_allocations()
        found = call()
        self.ooms_caught += failed_allocations() - before
        return found

    def _micro_batches(self, slots: range) -> Iterator[Batch]:
        assert self._buffered_inputs is not None
        each, places = self.batch_plan.cuts_each_into, self.args.steps_per_generation
        begin = slots.start % places
        due = self._buffered_inputs[begin * each : (begin + len(slots)) * each]
        return filter(None, due)

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clips; on OOM a gradient that is computed again: it may be clipped or unscaled in part."""
        norm_of = partial(super()._clip_grad_norm, model)

        def clip() -> tuple[Any, Tensor]:
            norm = norm_of()
            # As `torch.nn.utils.clip_grad_norm_` computes it.
            return norm, torch.clamp(self.args.max_grad_norm / (norm + 1e-6), max=1.0)

        with self.hooks.phase("optimizer"):
            found = self._catch_oom(clip)
        while isinstance(found, OutOfMemory):
            assert self.oom_policy is not None
            self.oom_policy.retry("optimizer", found.why)
            self._forget_unscaling()
            self.repeat_gradient()
            with self.hooks.phase("optimizer"):
                found = self._catch_oom(clip)
        norm, factor = found
        self.hooks.on_clipped(factor)
        return norm

    def before_optimizer_step(self) -> None:
        """Calls the hooks, on OOM again: what they copy before the weights move, they copy again."""
        self.end_comparing()
        while isinstance(found := self._catch_oom(self.hooks.before_optimizer_step), OutOfMemory):
            assert self.oom_policy is not None
            self.oom_policy.retry("optimizer", found.why)

    def _forget_unscaling(self) -> None:
        """Resets the gradient scaler, which unscales each gradient once, for a new gradient."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update(self.accelerator.scaler.get_scale())

    def write_step_row(self, write: Callable[[], None]) -> None:
        """Lets transformers write the step's row, again on OOM unless a callback has it already."""
        is_over = self.state.global_step > self._globalstep_last_logged  # the end of an epoch passes here once more
        if is_over:
            if self.accelerator.scaler is not None:  # float16
                skipped, scale = self.accelerator.optimizer_step_was_skipped, self.accelerator.scaler.get_scale()
                self._metrics["train"]["optimizer_skipped"].append(float(skipped))
                self._metrics["train"]["loss_scale"].append(scale)
            self._check_shortcuts()
        while isinstance(found := self._catch_oom(write), OutOfMemory):
            assert self.oom_policy is not None
            if is_over and self.state.global_step == self._globalstep_last_logged:
                raise self.oom_policy.give_up("between", found.why)
            self.oom_policy.retry("between", found.why)
        if is_over and self.oom_policy is not None:
            self.oom_policy.step_succeeded()

    def _check_shortcuts(self) -> None:
        """Reports which shortcuts Unsloth gave up in this step, and plans for it if its memory had run out."""
        now = given_up(self.model)
        news, self.given_up = sorted(now - self.given_up), now
        is_short, self.ooms_caught = self.ooms_caught > 0, 0
        if not news or self.oom_policy is None:
            return
        self._metrics["train"]["shortcuts_given_up"].append(float(len(news)))
        rows, lost = self.batch_plan.rows_together, unshared_groups(self.model)
        if is_short and self.batch_plan.keeps_groups and rows // self.batch_plan.group_size in lost:
            self.batch_plan = self.batch_plan.after_sharing()
            split = partial(self.split_rollout, self.rollout, self.sampled_after)
            while isinstance(found := self._catch_oom(split), OutOfMemory):
                self.oom_policy.retry("advantages", found.why)
        self.oom_policy.shortcuts_lost(news, rows, self.batch_plan.rows_together, is_short=is_short)

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
        """Log-probs and entropies (rows, completion tokens), in parts of `batch_size` rows, fewer after OOM.

        The loss gives no `batch_size`.
        """
        score = partial(super()._get_per_token_logps_and_entropies, model, input_ids, attention_mask, logits_to_keep)
        if batch_size is None:
            found = score(batch_size, *args, **kwargs)
            self.compare_micro_batch(found[0])
            return found
        if self.oom_policy is None:
            return score(batch_size, *args, **kwargs)

        def in_parts(rows: int) -> Any:
            with self._unsloths_parts(-(-len(input_ids) // rows)):
                return self._counting_ooms(lambda: score(rows, *args, **kwargs))

        return self.calls.run(partial(self.oom_policy.logprobs.run, in_parts, batch_size))

    @contextlib.contextmanager
    def _unsloths_parts(self, count: int) -> Iterator[None]:
        """Lets Unsloth score in at least `count` parts: it reads no `batch_size` (`mini_batches_per_rollout`)."""
        planned = getattr(self.args, "unsloth_grpo_mini_batch", None)
        if planned is None:
            yield
            return
        self.args.unsloth_grpo_mini_batch = max(count, planned)
        try:
            yield
        finally:
            self.args.unsloth_grpo_mini_batch = planned

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> Any:
        """Returns transformers' choice with a step that happens once or not at all."""
        optimizer, settings = super().get_optimizer_cls_and_kwargs(args, model)
        retry = _raise_oom if self.oom_policy is None else partial(self.oom_policy.retry, "optimizer")
        return atomic_step(optimizer, retry), settings

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Leaves out embeddings: a row whose token is in no batch has no gradient, and decay alone would erase it."""
        return [name for name in super().get_decay_parameter_names(model) if ".embed_tokens." not in name]

    def create_optimizer(self, model: Any = None) -> Any:
        """Prepares it for float16's gradient scaler."""
        optimizer = super().create_optimizer(model)
        if self.accelerator.scaler is not None:
            # It makes its two numbers with the first loss: between them memory must not run out.
            self.accelerator.scaler.scale(torch.zeros((), device=self.accelerator.device))
            # torch's fused AdamW would look for overflows itself, and accelerate would take a step that was skipped
            # for one that was made: the schedule would continue.
            optimizer._step_supports_amp_scaling = False
        return optimizer


def _raise_oom(why: str) -> None:
    raise torch.OutOfMemoryError(why)
