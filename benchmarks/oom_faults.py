"""What a run does when its memory runs out: the real error is raised at real places of a training of the tiny model.

    .venv/bin/python benchmarks/oom_faults.py --out benchmarks/records/faults-oom.json

Each case trains the embedded model in float32 for a few steps through the whole stack, with one shortage of memory in
one step, and is compared with the undisturbed training: the same tokens must be sampled, and the step that was done
again must move the weights as the undisturbed one does, to 1e-5 of the update's length. What is left of the run must
end with the group that it began with. The error is `torch.OutOfMemoryError` itself, raised where more rows stand
together than a limit, as a card would raise it: again and again until they are few enough.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.compose import resolve
from lowmem_rl.config import RunConfig
from lowmem_rl.engine import decoder, rollout
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.hardware import this_machine
from lowmem_rl.runs import read_rows
from lowmem_rl.tasks.base import Selection
from lowmem_rl.tasks.draw import draw_examples
from lowmem_rl.tasks.registry import load_task
from lowmem_rl.training.dataset import to_dataset, tokens_of
from lowmem_rl.training.machine import machine_record
from lowmem_rl.training.recovery import Place, Recovery
from lowmem_rl.training.trainer import make_trainer

GROUP_SIZE, PROMPTS, MICRO_BATCH, STEPS = 4, 6, 12, 4
TOLERANCE = 1e-5
PLACES: tuple[Place, ...] = ("sampling", "scoring", "backward", "optimizer")
LOSSES = ("dapo", "dr_grpo")
SHORTAGE = "CUDA out of memory. Tried to allocate 1.50 GiB."


@dataclass(frozen=True, slots=True)
class Fault:
    """Where memory is short, in which step, and the most rows that fit together there."""

    place: Place
    step: int
    fits: int


@dataclass
class Trained:
    """A short training: its weights before the first step and after each, and the tokens that it sampled."""

    weights: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    tokens: list[list[list[int]]] = field(default_factory=list)
    group_sizes: list[int] = field(default_factory=list)
    """Rows of each prompt in each step."""
    raised: int = 0
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def update(self, step: int) -> Tensor:
        """Returns what a step, counted from 1, added to the weights."""
        return self.weights[step] - self.weights[step - 1]


def settings_of(place: Place, loss: str) -> list[str]:
    """Returns the settings of a case; log-probs are scored only under a KL penalty."""
    return [
        "model.bits=16",
        "memory.checkpointing=none",
        "rollout.weights=merged",
        f"grpo.group_size={GROUP_SIZE}",
        f"grpo.prompts_per_step={PROMPTS}",
        f"grpo.steps={STEPS}",
        "grpo.max_completion_tokens=24",
        f"memory.micro_batch={MICRO_BATCH}",
        "optimizer.schedule=constant",
        "optimizer.warmup_steps=0",
        f"grpo.loss={loss}",
        f"grpo.scale_rewards={'none' if loss == 'dr_grpo' else 'group'}",
        f"grpo.beta={0.05 if place == 'scoring' else 0.0}",
    ]


def config_of(settings: Sequence[str]) -> RunConfig:
    """Returns the preset of the tiny model with these settings."""
    return resolve(preset="tiny-cpu", settings=list(settings)).config


@cache
def policy() -> Policy:
    """Loads the tiny model once; every training begins with the same adapter."""
    config, device = config_of(settings_of("backward", "dapo")), Device("cpu", "float32")
    prepare_process(config, device)
    return load_policy(config, device)


def train(settings: Sequence[str], out: Path, fault: Fault | None = None) -> Trained:
    """Trains in `out`, which gets recoveries.jsonl, with memory short where `fault` says."""
    config, trained = config_of(settings), Trained()
    recovery = Recovery(config, out / "recoveries.jsonl", trained.notes.append, lambda found: f"cure of {found}")
    trainer = _trainer(config, recovery, trained, out)
    trained.weights.append(_flat(trainer.model))
    with short_of_memory(fault, trainer, trained), recovery.told_at_the_end():
        trainer.train()
    trained.recoveries = list(read_rows(out / "recoveries.jsonl"))
    return trained


def _trainer(config: RunConfig, recovery: Recovery, trained: Trained, out: Path) -> Any:
    from transformers import TrainerCallback

    class Weights(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            trained.gradients.append(torch.cat([weight.grad.flatten() for weight in _trainable(trainer.model)]))

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            trained.weights.append(_flat(trainer.model))

    def on_scored(batch: Any) -> None:
        trained.tokens.append([list(ids) for ids in batch.completion_ids])
        trained.group_sizes += [batch.example_ids.count(key) for key in dict.fromkeys(batch.example_ids)]

    _restart_adapter(policy())
    examples = draw_examples(load_task(config.task), Selection("train", 64, config.task.levels, 0), 64)
    sampler = Sampler(policy(), config)
    sampler.limit = recovery.sampling
    trainer = make_trainer(
        policy(),
        config,
        sampler=sampler,
        dataset=to_dataset(examples),
        reward_functions=[_lengths, _lengths],
        prompt_tokens=tokens_of(policy(), {example.id: example for example in examples}),
        callbacks=[Weights()],
        on_scored=on_scored,
        out=out,
        recovery=recovery,
    )
    return trainer


def _lengths(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
    """A reward that every group differs in."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def _restart_adapter(policy: Policy) -> None:
    """Sets every trainable weight anew: away from zero, where half of a fresh adapter has no gradient."""
    generator = torch.Generator().manual_seed(0)
    if "ref" in policy.model.peft_config:  # TRL's frozen copy, from a training before
        policy.model.delete_adapter("ref")
    for name, weight in policy.model.named_parameters():
        if "lora_" in name:
            weight.requires_grad_(True)
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05


def _trainable(model: Any) -> list[Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _flat(model: Any) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in _trainable(model)])


@contextlib.contextmanager
def short_of_memory(fault: Fault | None, trainer: Any, trained: Trained) -> Iterator[None]:
    """Lets the real error come up in the fault's step, each time that more rows than fit stand together."""
    if fault is None:
        yield
        return

    def take(rows: int) -> None:
        if trainer.state.global_step == fault.step - 1 and rows > fault.fits:
            trained.raised += 1
            raise torch.OutOfMemoryError(SHORTAGE)

    places = {"sampling": _sampling, "scoring": _scoring, "backward": _backward, "optimizer": _optimizer}
    with places[fault.place](take, trainer):
        yield


@contextlib.contextmanager
def _sampling(take: Any, trainer: Any) -> Iterator[None]:
    """In the third layer, once some tokens are there."""
    step = decoder.step
    calls = 0

    def short(model: Any, tokens: Tensor, *args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            take(len(tokens))
        return step(model, tokens, *args)

    rollout.step = short
    try:
        yield
    finally:
        rollout.step = step


@contextlib.contextmanager
def _scoring(take: Any, trainer: Any) -> Iterator[None]:
    """In the third layer of a forward without gradients."""

    def short(module: Any, inputs: Any) -> None:
        if not torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            take(len(inputs[0]))

    handle = _third_layer(trainer).register_forward_pre_hook(short)
    yield
    handle.remove()


class _Short(torch.autograd.Function):
    """Passes everything, and runs out of memory on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Any) -> Tensor:
        ctx.take = take
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.take(len(gradient))
        return gradient, None


@contextlib.contextmanager
def _backward(take: Any, trainer: Any) -> Iterator[None]:
    """Half-way down: the layers above have their gradients already."""

    def short(module: Any, inputs: Any, output: Any) -> Any:
        return _Short.apply(output, take) if torch.is_grad_enabled() else output

    handle = _third_layer(trainer).register_forward_hook(short)
    yield
    handle.remove()


@contextlib.contextmanager
def _optimizer(take: Any, trainer: Any) -> Iterator[None]:
    """Once half of the weights are updated and all counters are raised; there are no rows to be fewer of."""
    update, calls = torch._fused_adamw_, 0

    def short(weights: Any, gradients: Any, *states: Any, **settings: Any) -> None:
        nonlocal calls
        half, calls = len(weights) // 2, calls + 1
        update(weights[:half], gradients[:half], *(state[:half] for state in states), **settings)
        if calls == short.first:
            take(10**9)
        update(weights[half:], gradients[half:], *(state[half:] for state in states), **settings)

    short.first = 0
    torch._fused_adamw_ = short

    class Arm(_callback()):
        def on_pre_optimizer_step(self, args: Any, state: Any, *others: Any, **more: Any) -> None:
            short.first = calls + 1

    trainer.add_callback(Arm())
    try:
        yield
    finally:
        torch._fused_adamw_ = update


def _callback() -> type:
    from transformers import TrainerCallback

    return TrainerCallback


def _third_layer(trainer: Any) -> Any:
    return trainer.model.get_base_model().model.layers[2]
