"""A training on the card, weight by weight and layer by layer: which weights moved, which layers were recomputed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.storage.run_dir import Row, RunDir, read_rows

SHORT = (
    "rollout.engine=lowmem",  # auto times both, and times mean nothing here
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
    recomputed: tuple[int, ...]
    """Forwards of each decoder layer within backward passes."""
    norms: int
    """Norms that a backward pass came through."""
    rows: tuple[Row, ...]


def words(*settings: str, steps: int = 1) -> list[str]:
    """Returns what follows `train`, all but --out."""
    given = dict(setting.split("=", 1) for setting in (*SHORT, *settings))
    return ["--preset=tiny-cpu", f"--steps={steps}", *(f"--set={name}={value}" for name, value in given.items())]


def look(settings: tuple[str, ...], out: str) -> Looked:
    """Runs on the card: trains a step."""
    from transformers.trainer_callback import CallbackHandler

    from tests.rehearsal.card.state import STATE
    from tests.rehearsal.child import lowmem

    begun: list[Any] = []
    recomputed: Counter[int] = Counter()
    plain = CallbackHandler.on_step_begin

    def on_step_begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not begun:
            begun.append((self.model, {name: _numbers(value) for name, value in self.model.named_parameters()}))
            _count_recomputed(self.model.get_base_model().model.layers, recomputed)
        return plain(self, *args, **kwargs)

    CallbackHandler.on_step_begin = on_step_begin
    code = lowmem("train", *words(*settings), "--out", out)
    model, before = begun[0]
    now = dict(model.named_parameters())
    return Looked(
        code=code,
        moved=frozenset(name for name, value in now.items() if not before[name].equal(_numbers(value))),
        learning=frozenset(name for name, value in now.items() if value.requires_grad),
        recomputed=tuple(recomputed[number] for number in range(len(model.get_base_model().model.layers))),
        norms=STATE.kernels["_rms_layernorm_backward"],
        rows=tuple(read_rows(RunDir(Path(out)).metrics)),
    )


def _numbers(weight: Any) -> Any:
    return weight.detach().cpu().clone()


def _count_recomputed(layers: Any, recomputed: Counter[int]) -> None:
    import torch

    for number, layer in enumerate(layers):

        def forward(*args: Any, number: int = number, plain: Any = layer.forward, **kwargs: Any) -> Any:
            recomputed[number] += torch._C._current_graph_task_id() >= 0  # a backward pass is under way
            return plain(*args, **kwargs)

        layer.forward = forward
