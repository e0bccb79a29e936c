"""Where the time of an arm's step goes, by the wall clock and by the process's CPU clock, and how much work it does.

The same methods are timed in every arm, by a class that joins the trainer's: plain TRL and Unsloth have no hooks. On a
GPU the queue is emptied at the start and end of a phase, and only there.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from lowmem_rl.engine import continuous_batching
from lowmem_rl.engine.device import Device
from lowmem_rl.phases import OTHER
from lowmem_rl.telemetry.step_timer import StepTimer
from lowmem_rl.trl_adapter.timed import TimedMixin
from lowmem_rl_bench.step.token_replay import SamplingCounts

_PHASES = ("rollout", "scoring", "update", "optimizer")
"""`update` is forward and backward; time outside all phases is "other"."""


@dataclass(slots=True)
class UpdateCounts:
    """Work of the forward and backward passes of one step."""

    micro_batches: int = 0
    rows: int = 0
    tokens: int = 0
    """Tokens that went through the model with a gradient, including padding; a shared prompt counts once."""
    completion_tokens: int = 0
    """Those in the loss."""
    attended: int = 0
    """Pairs of a query and a key in attention, including masked ones: the quadratic part."""


class ArmTimer(StepTimer):
    """A `StepTimer` of two clocks that also counts the work of the current step."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.counts = SamplingCounts()
        self.reward = 0.0  # mean over the completions of the last rollout
        self.restart()

    def restart(self) -> None:
        """Begins a step; time between two steps belongs to neither."""
        self.is_between, self.marks = False, []
        self.updates, self.useful_tokens = UpdateCounts(), 0
        self.counts.restart()  # the counting functions hold this object
        self._mark()

    def read(self) -> dict[str, Any]:
        """Returns the step so far as JSON data, times in seconds."""
        self._mark()
        phases = {phase: {"wall": 0.0, "cpu": 0.0} for phase in (*_PHASES, OTHER)}
        for (phase, began), (_, ended) in pairwise(self.marks):
            for clock in began:
                phases[phase][clock] += ended[clock] - began[clock]
        return {
            **{clock: sum(spent[clock] for spent in phases.values()) for clock in ("wall", "cpu")},
            "phases": phases,
            "sampled": asdict(self.counts),
            "updated": asdict(self.updates),
            "useful_tokens": self.useful_tokens,
            "reward": self.reward,
        }

    def _mark(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()
        self.marks.append((self.open[-1], {"wall": time.perf_counter(), "cpu": time.process_time()}))

    def tokens_read(self) -> int:
        """Returns the tokens of the step that were read with a gradient."""
        return self.updates.tokens

    def count_tokens(self, model: Any) -> None:
        """Counts what the model reads with a gradient; recomputed activations start after the embedding."""

        def read(embedding: Any, inputs: Any, output: Any) -> None:
            if torch.is_grad_enabled():
                self.updates.tokens += inputs[0].numel()

        model.get_input_embeddings().register_forward_hook(read)

    def count_scores(self, completion_ids: Sequence[Sequence[int]], rewards: Tensor) -> None:
        """Counts the sampled tokens; rewards (rows,) become their mean."""
        self.useful_tokens, self.reward = sum(map(len, completion_ids)), float(rewards.mean())

    def count_update(self, inputs: Any, tokens_before: int) -> None:
        """Counts a micro-batch that was read after `tokens_before` of the step's tokens."""
        rows, length = inputs["completion_ids"].shape
        prompt, sampled = inputs["prompt_ids"].shape[1], rows * length
        self.updates.micro_batches += 1
        self.updates.rows += rows
        # A prompt token sees the prompt, a completion token both.
        self.updates.attended += sampled * length + (self.updates.tokens - tokens_before) * prompt
        self.updates.completion_tokens += int(inputs["completion_mask"].sum())


def timed_by(timer: ArmTimer) -> type:
    """Returns what a trainer's class is joined with so that the timer times and counts its steps."""
    return type("Timed", (TimedMixin,), {"timer": timer})


def optimizer_callback(timer: ArmTimer) -> TrainerCallback:
    """Returns the callback that times the optimizer's step."""
    phase = ExitStack()

    class OptimizerPhase(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            phase.enter_context(timer.phase("optimizer"))

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            phase.close()

    return OptimizerPhase()


def count_engine(counts: SamplingCounts) -> None:
    """Counts what our engine reads and samples in this process."""
    engine: Any = continuous_batching
    sample_token, step = engine.sample_token, engine.step
    prefill, prefill_packed = engine.prefill, engine.prefill_packed

    def counted_sample_token(logits: Any, *args: Any) -> Any:
        counts.add_sampled(len(logits))
        return sample_token(logits, *args)

    def counted_prefill(decoder: Any, ids: Any, lengths: Any) -> Any:
        counts.prefill_tokens += ids.numel()
        return prefill(decoder, ids, lengths)

    def counted_prefill_packed(decoder: Any, beginning: Any, own: Any) -> Any:
        counts.prefill_tokens += len(beginning) + sum(map(len, own))
        return prefill_packed(decoder, beginning, own)

    def counted_step(decoder: Any, tokens: Any, places: Any, cache: Any, longest: int) -> Any:
        counts.attended += len(tokens) * longest
        return step(decoder, tokens, places, cache, longest)

    engine.sample_token, engine.step = counted_sample_token, counted_step
    engine.prefill, engine.prefill_packed = counted_prefill, counted_prefill_packed
