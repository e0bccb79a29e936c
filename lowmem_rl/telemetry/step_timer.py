"""Where a step's time goes: read off at the borders of its phases, which costs nothing and waits for nothing.

On a CPU a border is the moment at which the program reaches it. On a GPU, whose work is queued, it is the moment at
which the card does: a CUDA event is queued there and read when the step has ended anyway.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from lowmem_rl.engine.device import Device

PHASES = ("rollout", "scoring", "logprobs", "update", "optimizer")
"""`logprobs` is what follows scoring before the first micro-batch: advantages, and log-probs of other policies where
the loss needs any. `update` is forward and backward, `optimizer` clipping and stepping."""
OTHER = "other"

Mark = Any
"""A moment: seconds, or a CUDA event."""


class StepTimer:
    """The step that runs now; `restart` begins the next. Phases within phases are counted once, as the inner one."""

    def __init__(self, device: Device) -> None:
        self.is_gpu = device.is_gpu
        self.restart()

    def restart(self) -> None:
        """Begins a step: what lies between two steps belongs to neither."""
        self.open = [OTHER]
        self.marks: list[tuple[str, Mark]] = []
        self.began_s = time.monotonic()

    def read(self) -> dict[str, float]:
        """Returns the seconds of the step so far, whole and by phase, as metric rows name them."""
        whole = time.monotonic() - self.began_s
        if self.is_gpu and self.marks:
            self.marks[-1][1].synchronize()  # the trainer has read the loss: nothing is left to wait for
        spent = dict.fromkeys(PHASES, 0.0)
        for (phase, began), (_, ended) in pairwise(self.marks):
            if phase != OTHER:
                spent[phase] += self._between(began, ended)
        other = max(0.0, whole - sum(spent.values()))
        return {"step_s": whole} | {f"{phase}_s": seconds for phase, seconds in (spent | {OTHER: other}).items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what runs inside as a phase."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def watch(self, trainer: Any) -> None:
        """Times a trainer's steps. Methods are wrapped on the instance: Unsloth rewrites the class."""
        trainer._generate_single_turn = self._timed("rollout", trainer._generate_single_turn)
        trainer._calculate_rewards = self._timed("scoring", trainer._calculate_rewards)
        trainer._generate_and_score_completions = self._timed("logprobs", trainer._generate_and_score_completions)
        trainer.compute_loss = self._timed("update", trainer.compute_loss)
        accelerator = trainer.accelerator
        accelerator.backward = self._timed("update", accelerator.backward)
        accelerator.clip_grad_norm_ = self._timed("optimizer", accelerator.clip_grad_norm_)
        trainer.add_callback(self._callback())

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return run

    def _callback(self) -> Any:
        from transformers import TrainerCallback

        def begins(*args: Any, **kwargs: Any) -> None:
            self._begin("optimizer")

        def ends(*args: Any, **kwargs: Any) -> None:
            self._end()

        return type(
            "OptimizerClock", (TrainerCallback,), {"on_pre_optimizer_step": begins, "on_optimizer_step": ends}
        )()

    def _begin(self, phase: str) -> None:
        self.open.append(phase)
        self._mark()

    def _end(self) -> None:
        self.open.pop()
        self._mark()

    def _mark(self) -> None:
        """Notes what runs from here on."""
        self.marks.append((self.open[-1], self._now()))

    def _now(self) -> Mark:
        if not self.is_gpu:
            return time.monotonic()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, began: Mark, ended: Mark) -> float:
        return began.elapsed_time(ended) / 1000 if self.is_gpu else ended - began
