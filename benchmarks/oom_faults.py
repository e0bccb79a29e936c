"""What a run does on OOM: the real error, raised in every phase of a training of the tiny model.

    .venv/bin/python benchmarks/oom_faults.py --out benchmarks/records/faults-oom.json

Each case trains the embedded model in float32 for some steps through the whole stack, with too little memory in one
phase of one step, and is compared with the undisturbed training: the sampled tokens, the gradient and the update of
the repeated step must be equal, and the run must end with the groups it began with. The error is
`torch.OutOfMemoryError`, raised as on a card: each time that more rows than fit are together.

Errors are relative: for a gradient the largest difference over the largest element, for an update the norm of the
difference over its norm. AdamW divides by the root of the squared gradient: if a gradient is only rounding, so is the
direction of the update. In the first step, when each weight moves by the sign of its gradient, that is enough to miss
1e-5: there the gradient is the better measure.
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine import continuous_batching, decoder
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.grpo.oom_policy import OomPolicy, Phase
from lowmem_rl.grpo.oom_retry import OptimizerSnapshot
from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.storage.run_dir import read_rows
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer

GROUP_SIZE, PROMPTS, MICRO_BATCH, STEPS = 4, 6, 12, 2
TOLERANCE = 1e-5
PHASES: tuple[Phase, ...] = ("rollout", "logprobs", "backward", "optimizer")
LOSSES = ("dapo", "dr_grpo")
SHORTAGE = "CUDA out of memory. Tried to allocate 1.50 GiB."


@dataclass(frozen=True, slots=True)
class Fault:
    """The phase and step (from 1) that lack memory, and the most rows that fit there."""

    phase: Phase
    step: int
    fits: int
    times: int | None = None
    """How often memory is short; None: each time that too many rows are together."""


FAULTS = (
    *(Fault("rollout", *where) for where in ((1, 12), (2, 7), (2, 3), (2, 1))),
    *(Fault("logprobs", *where) for where in ((1, 6), (2, 5), (2, 3), (2, 1))),
    *(Fault("backward", *where) for where in ((1, 6), (2, 5), (2, 3), (2, 1))),
    # The optimizer has no rows to reduce.
    *(Fault("optimizer", step, 0, times) for step in (1, 2) for times in (1, 2)),
)


@dataclass
class Trained:
    """A short training: its weights (parameters,) before the first step and after each, and the sampled tokens."""

    weights: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    tokens: list[list[list[int]]] = field(default_factory=list)
    group_sizes: set[int] = field(default_factory=set)
    """Completions of a prompt in a step."""
    raised: int = 0
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    logged: list[dict[str, Any]] = field(default_factory=list)
    """What TRL logs, one row a step."""

    def update(self, step: int) -> Tensor:
        """Returns the change of the weights by a step, counted from 1."""
        return self.weights[step] - self.weights[step - 1]


def main() -> None:
    """Runs all cases and writes the record."""
    options = _options()
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for loss, phase in itertools.product(LOSSES, PHASES):
            settings = settings_of(phase, loss)
            undisturbed = train(settings, Path(folder, phase, loss, "undisturbed"))
            for number, fault in enumerate(fault for fault in FAULTS if fault.phase == phase):
                disturbed = train(settings, Path(folder, phase, loss, str(number)), fault)
                rows.append({"loss": loss} | compared(fault, disturbed, undisturbed))
                print(json.dumps(rows[-1]), file=sys.stderr)
    machine = environment_record(this_machine(), Device("cpu", "float32"))
    record = {
        "date": date.today().isoformat(),
        "command": " ".join(["benchmarks/oom_faults.py", *sys.argv[1:]]),
        "machine": machine,
    }
    record |= {"seconds": round(time.monotonic() - began), "summary": summary(rows), "rows": rows}
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(summary(rows), indent=2))


def compared(fault: Fault, disturbed: Trained, undisturbed: Trained) -> dict[str, Any]:
    """Returns a row of the record; there is one recovery for each time that the error was raised."""
    step = fault.step
    rows = [found["rows"] for found in disturbed.recoveries]
    gradients = disturbed.gradients[step - 1], undisturbed.gradients[step - 1]
    updates = disturbed.update(step), undisturbed.update(step)
    return {
        "phase": fault.phase,
        "step": step,
        "raised": disturbed.raised,
        "rows_before": rows[0],
        "rows_after": disturbed.recoveries[-1]["next_rows"],
        "same_weights_before": torch.equal(disturbed.weights[step - 1], undisturbed.weights[step - 1]),
        "same_tokens": disturbed.tokens[:step] == undisturbed.tokens[:step],
        "gradient_error": float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()),
        "update_error": float((updates[0] - updates[1]).norm() / updates[1].norm()),
        "steps_done": len(disturbed.weights) - 1,
        "group_sizes": sorted(disturbed.group_sizes),
    }


def is_sound(row: dict[str, Any]) -> bool:
    """Returns whether a row reaches the target."""
    exact = max(row["gradient_error"], row["update_error"]) <= TOLERANCE
    whole = row["group_sizes"] == [GROUP_SIZE] and row["steps_done"] == STEPS
    return exact and whole and row["same_tokens"] and row["same_weights_before"] and row["raised"] > 0


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of the target."""
    return {
        "cases": len(rows),
        "sound": sum(map(is_sound, rows)),
        "errors_raised": sum(row["raised"] for row in rows),
        "largest_gradient_error": max(row["gradient_error"] for row in rows),
        "largest_update_error": max(row["update_error"] for row in rows),
        "snapshot": snapshot_cost(),
    }


def snapshot_cost(weights: int = 40_370_176, tensors: int = 392) -> dict[str, float]:
    """Returns the cost of the copy before an optimizer step: Qwen2.5-7B's adapter of rank 16, AdamW in 8 bit."""
    parameters = [torch.nn.Parameter(torch.zeros(weights // tensors)) for _ in range(tensors)]
    optimizer = torch.optim.SGD(parameters)
    for parameter in parameters:
        optimizer.state[parameter] = {name: torch.zeros(len(parameter), dtype=torch.uint8) for name in ("m", "v")}
    OptimizerSnapshot.of(optimizer)
    began = time.perf_counter()
    OptimizerSnapshot.of(optimizer)
    return {"bytes": 6 * weights, "host_seconds": round(time.perf_counter() - began, 3)}


def settings_of(phase: str, loss: str) -> dict[str, Any]:
    """Returns the settings of a case; log-probs are computed only under a KL penalty."""
    return {
        "model.bits": 16,
        "memory.checkpointing": "none",
        "rollout.weights": "merged",
        "grpo.group_size": GROUP_SIZE,
        "grpo.prompts_per_step": PROMPTS,
        "grpo.steps": STEPS,
        "grpo.max_completion_tokens": 24,
        "memory.micro_batch": MICRO_BATCH,
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 0,
        "grpo.loss": loss,
        "grpo.scale_rewards": "none" if loss == "dr_grpo" else "group",
        "grpo.beta": 0.05 if phase == "logprobs" else 0.0,
    }


def config_of(settings: Mapping[str, Any]) -> RunConfig:
    """Returns the preset of the tiny model with these settings."""
    return resolve(preset="tiny-cpu", settings=[f"{key}={value}" for key, value in settings.items()]).config


@cache
def policy() -> Policy:
    """Loads the tiny model once; every training starts with the same adapter."""
    config, device = config_of(settings_of("backward", "dapo")), Device("cpu", "float32")
    prepare_process(config, device)
    return load_policy(config, device)


def train(settings: Mapping[str, Any], out: Path, fault: Fault | None = None) -> Trained:
    """Trains in `out`, which gets recoveries.jsonl, with too little memory as `fault` says."""
    config, trained = config_of(settings), Trained()
    oom_policy = OomPolicy(
        config, out / "recoveries.jsonl", trained.notes.append, lambda phase, found: f"fix of {found} in {phase}"
    )
    trainer = _trainer(config, oom_policy, trained, out)
    trained.weights.append(_flat(trainer.model))
    with short_of_memory(fault, trainer, trained), oom_policy.report_settings():
        trainer.train()
    trained.recoveries = list(read_rows(out / "recoveries.jsonl"))
    trained.logged = trainer.state.log_history
    return trained


def _trainer(config: RunConfig, oom_policy: OomPolicy, trained: Trained, out: Path) -> Any:
    from transformers import TrainerCallback

    class Weights(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
            trained.gradients.append(torch.cat([weight.grad.flatten() for weight in _trainable(model)]))

        def on_step_end(self, *args: Any, model: Any, **kwargs: Any) -> None:
            trained.weights.append(_flat(model))

    _restart_adapter(policy())
    examples = draw_examples(load_task(config.task), Selection("train", 64, config.task.levels, 0), 64)
    sampler = Sampler(policy(), config)
    sampler.rollout_limit = oom_policy.rollout

    class Tokens:
        def on_scored(self, batch: Any) -> None:
            trained.tokens.append([list(ids) for ids in batch.completion_ids])
            trained.group_sizes |= set(Counter(batch.example_ids).values())

    setup = TrainerSetup(
        config=config,
        sampler=sampler,
        dataset=to_dataset(examples),
        reward_functions=[_lengths, _lengths],
        prompt_tokens=tokens_of(policy(), {example.id: example for example in examples}),
        out=out,
        hooks=Hooks((Tokens(),)),
        callbacks=[Weights()],
        oom_policy=oom_policy,
    )
    return make_trainer(policy(), setup)


def _lengths(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
    """A reward that differs in every group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def _restart_adapter(policy: Policy) -> None:
    """Resets every trainable weight, none to zero: at zero, half of a new adapter has no gradient."""
    generator = torch.Generator().manual_seed(0)
    if "ref" in policy.model.peft_config:  # TRL's frozen copy, from an earlier training
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
    """Raises the real error in the fault's step, each time that more rows than fit are together."""
    if fault is None:
        yield
        return

    def allocate(rows: int) -> None:
        is_over = fault.times is not None and trained.raised >= fault.times
        if trainer.state.global_step == fault.step - 1 and rows > fault.fits and not is_over:
            trained.raised += 1
            raise torch.OutOfMemoryError(SHORTAGE)

    phases = {"rollout": _rollout, "logprobs": _logprobs, "backward": _backward, "optimizer": _optimizer}
    with phases[fault.phase](allocate, trainer):
        yield


@contextlib.contextmanager
def _rollout(allocate: Any, trainer: Any) -> Iterator[None]:
    """Fails in the third layer, after some tokens."""
    step = decoder.step
    calls = 0

    def short(model: Any, tokens: Tensor, *args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            allocate(len(tokens))
        return step(model, tokens, *args)

    continuous_batching.step = short
    try:
        yield
    finally:
        continuous_batching.step = step


@contextlib.contextmanager
def _logprobs(allocate: Any, trainer: Any) -> Iterator[None]:
    """Fails in the third layer of a forward without gradients."""

    def short(module: Any, inputs: Any) -> None:
        if not torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            allocate(len(inputs[0]))

    handle = _third_layer(trainer).register_forward_pre_hook(short)
    yield
    handle.remove()


class _Short(torch.autograd.Function):
    """The identity, which runs out of memory in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, allocate: Any) -> Tensor:
        ctx.allocate = allocate
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.allocate(len(gradient))
        return gradient, None


@contextlib.contextmanager
def _backward(allocate: Any, trainer: Any) -> Iterator[None]:
    """Fails in the third layer, when the layers above already have their gradients."""

    def short(module: Any, inputs: Any, output: Any) -> Any:
        return _Short.apply(output, allocate) if torch.is_grad_enabled() else output

    handle = _third_layer(trainer).register_forward_hook(short)
    yield
    handle.remove()


@contextlib.contextmanager
def _optimizer(allocate: Any, trainer: Any) -> Iterator[None]:
    """Fails after the update of half of the weights and of all step counters."""
    update = torch._fused_adamw_

    def short(*tensors: Any, **settings: Any) -> None:
        half = len(tensors[0]) // 2
        update(*(some[:half] for some in tensors), **settings)
        allocate(1)
        update(*(some[half:] for some in tensors), **settings)

    torch._fused_adamw_ = short
    try:
        yield
    finally:
        torch._fused_adamw_ = update


def _third_layer(trainer: Any) -> Any:
    return trainer.model.get_base_model().model.layers[2]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/faults-oom.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
