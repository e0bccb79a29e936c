"""A training on the card, looked at weight by weight and layer by layer: which moved, and how often each was computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.storage.run_dir import Row, RunDir, read_rows

SHORT = (
    "grpo.prompts_per_step=2",
    "grpo.max_completion_tokens=16",
    "grpo.beta=0.04",
    "memory.micro_batch=8",
    "rewards.random=1",
    "eval.examples=2",
    "eval.quick_examples=2",
    "eval.every=0",
    "optimizer.warmup_steps=0",
)
"""Two micro-batches a step, with a KL term."""


@dataclass(frozen=True)
class Looked:
    """What a training did."""

    code: int
    moved: frozenset[str]
    """Weights that changed between the first step and the end."""
    learning: frozenset[str]
    """Weights that need gradients."""
    forwards: tuple[int, ...]
    """Forwards of each decoder layer in the update of the first step, recomputed ones among them."""
    rows: tuple[Row, ...]


def words(*settings: str, steps: int = 1) -> list[str]:
    """Returns what follows `train`, all but --out."""
    return ["--preset=tiny-cpu", f"--steps={steps}", *(f"--set={setting}" for setting in (*SHORT, *settings))]


def look(settings: tuple[str, ...], out: str) -> Looked:
    """Runs on the card: trains a step."""
    from transformers.trainer_callback import CallbackHandler

    from lowmem_rl.trl_adapter.update import UpdateMixin
    from tests.rehearsal.child import lowmem

    begun: list[Any] = []
    forwards, plain_begin, plain_backward = Counter(), CallbackHandler.on_step_begin, UpdateMixin._backward

    def on_step_begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not begun:
            begun.append((self.model, {name: _numbers(value) for name, value in self.model.named_parameters()}))
        return plain_begin(self, *args, **kwargs)

    def _backward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _counted(begun[0][0].get_base_model().model.layers, forwards):
            return plain_backward(self, *args, **kwargs)

    CallbackHandler.on_step_begin, UpdateMixin._backward = on_step_begin, _backward
    code = lowmem("train", *words(*settings), "--out", out)
    model, before = begun[0]
    now = dict(model.named_parameters())
    return Looked(
        code=code,
        moved=frozenset(name for name, value in now.items() if not before[name].equal(_numbers(value))),
        learning=frozenset(name for name, value in now.items() if value.requires_grad),
        forwards=tuple(forwards[number] for number in range(len(model.get_base_model().model.layers))),
        rows=tuple(read_rows(RunDir(Path(out)).metrics)),
    )


def _numbers(weight: Any) -> Any:
    return weight.detach().cpu().clone()


def _counted(layers: Any, forwards: Counter[int]) -> Any:
    """Counts in the innermost function: checkpointing calls it again, hooks do not run for all of it."""
    from contextlib import ExitStack
    from unittest.mock import patch

    stack = ExitStack()
    for number, layer in enumerate(layers):

        def forward(*args: Any, number: int = number, plain: Any = layer.forward, **kwargs: Any) -> Any:
            forwards[number] += 1
            return plain(*args, **kwargs)

        stack.enter_context(patch.object(layer, "forward", forward))
    return stack
