"""Trains two steps on given tokens from a given adapter, on the device of this process; runs in a child.

Tokens and rewards are the benchmark's recorded ones (`lowmem_rl_bench.step`): the sampler reads them as if it had
picked them, so that both sides learn from the same rows and every number can be compared.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.engine.policy import Policy
    from lowmem_rl_bench.step.bench_workload import BenchWorkload
    from lowmem_rl_bench.step.token_replay import RecordedCompletions

Numbers = numpy.ndarray[Any, numpy.dtype[numpy.float32]]
Update = Literal["prefix", "packed", "padded"]
"""How Unsloth computes the loss's log-probs: shared prompts (Prefix Grouper), one packed row, or padded rows."""

PROMPTS, GROUP, PROMPT_TOKENS, COMPLETION_TOKENS = 4, 4, 40, 24
STEPS = 2
B_SPREAD = 0.004
LEARNING_RATE = 1e-5
DTYPE: Literal["float32"] = "float32"


@dataclass(frozen=True, slots=True)
class Case:
    """One way through an update."""

    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    beta: float = 0.0
    update: Update = "prefix"
    checkpointing: Literal["none", "plain", "unsloth"] = "none"
    bits: Literal[4, 16] = 4
    layers: str = "all"
    kept_states: Literal["off", "host", "card"] = "off"

    def __str__(self) -> str:
        frozen = "" if self.layers == "all" else f", {self.layers}, states {self.kept_states}"
        return f"{self.loss}, beta {self.beta:g}, {self.update}, {self.checkpointing}, {self.bits} bit{frozen}"


@dataclass(frozen=True, slots=True)
class Computed:
    """What one side computed."""

    workload: BenchWorkload
    log_probs: Mapping[str, Numbers]
    """In nats a token: `sampled` by our engine, `training` as the model gives them, `reference` as the KL term does."""
    advantages: Numbers
    gradients: Numbers
    """Of each step (steps, weights)."""
    start: Numbers
    weights: Numbers
    """After the last step."""
    update: Update
    """What computed the loss's log-probs, by the marks that Unsloth leaves on the model."""
    offloads: int
    """Forwards whose activations Unsloth's checkpointing sent to host RAM."""
    bottom: int
    """Forwards of layer 0 for the loss and its log-probs."""


def compute(cases: Sequence[Case]) -> list[Computed]:
    """Returns what this device computes in each case."""
    return [_computed(case) for case in cases]


def _computed(case: Case) -> Computed:
    from lowmem_rl.engine.policy import load_policy, prepare_process
    from lowmem_rl_bench.step import stacks
    from lowmem_rl_bench.step.token_replay import RecordedCompletions

    config, device = _config_of(case), _device()
    prepare_process(config, device)
    if device.is_gpu:
        _switch(case.update)
    with tempfile.TemporaryDirectory() as folder:
        policy = load_policy(config, device)
        _offload_everything()
        offloads = _offloads()
        workload = _workload(config, policy)
        kept: list[Numbers] = []
        stacks.fill_adapter(policy.model, 0, 0.0 if case.beta else B_SPREAD)
        trainer, sampler = _trainer(config, policy, RecordedCompletions(workload), kept, Path(folder))
        if case.beta:  # TRL's reference is the adapter it is built over, Unsloth's the base: the same before this one
            stacks.fill_adapter(policy.model, 0, B_SPREAD)
        start, training = _flat(stacks.adapter_of(policy.model)), _training_log_probs(policy, workload)
        bottom = _count_bottom(trainer)
        trainer.train()
        return Computed(
            workload,
            {"training": training, "sampled": sampler.log_probs, **_reference(trainer.rollout)},
            trainer.rollout["advantages"].float().cpu().numpy(),
            numpy.stack(kept),
            start,
            _flat(stacks.adapter_of(policy.model)),
            _update_of(policy.model),
            _offloads() - offloads,
            len(bottom),
        )


def _count_bottom(trainer: Any) -> list[None]:
    """Returns a list that gets an entry for each forward of layer 0 in the trainer's own computations."""
    counted, inside = list[None](), list[None]()

    def counting(call: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            inside.append(None)
            try:
                return call(*args, **kwargs)
            finally:
                inside.pop()

        return run

    def count(*_: Any) -> None:
        if inside:
            counted.append(None)

    trainer.model.get_base_model().model.layers[0].self_attn.register_forward_pre_hook(count)
    for name in ("compute_loss", "_get_per_token_logps_and_entropies"):
        setattr(trainer, name, counting(getattr(trainer, name)))
    return counted


def _config_of(case: Case) -> RunConfig:
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.planning.overrides import with_overrides
    from lowmem_rl_bench.step.bench_workload import WorkloadShape
    from lowmem_rl_bench.step.replays import replay_config

    settings = {
        "model.bits": case.bits,
        "model.dtype": DTYPE,
        "grpo.loss": case.loss,
        "grpo.beta": case.beta,
        "grpo.scale_rewards": "none" if case.loss == "dr_grpo" else "group",
        "trainable.layers": case.layers,
        "memory.kept_states": case.kept_states,
        "grpo.max_prompt_tokens": 512,  # below, Unsloth's checkpointing is the plain one
        "memory.checkpointing": case.checkpointing,
        "optimizer.learning_rate": LEARNING_RATE,
        "memory.micro_batch": 2 * GROUP,
        "memory.rollout_rows": PROMPTS * GROUP,
        "rollout.engine": "lowmem",
        "rollout.weights": "quantized",
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 0,
    }
    shape = WorkloadShape(PROMPTS, GROUP, PROMPT_TOKENS, COMPLETION_TOKENS)
    return replay_config(with_overrides(resolve(preset="tiny-cpu").config, settings), shape, STEPS)


def _device() -> Any:
    import torch

    from lowmem_rl.engine.device import Device

    return Device("cuda" if torch.cuda.is_available() else "cpu", DTYPE)


def _switch(update: Update) -> None:
    """Turns Unsloth's shared and packed forwards off as its environment variables do where it reads them at import."""
    import trl
    from unsloth.utils import prefix_grouper

    rewritten = sys.modules[trl.GRPOTrainer.__module__]
    prefix_grouper._ENABLED = update == "prefix"
    os.environ["UNSLOTH_GRPO_SEQ_PACKING"] = "0" if update == "padded" else "1"
    rewritten.UNSLOTH_GRPO_SEQ_PACKING_ON = update != "padded"


def _offload_everything() -> None:
    """Unsloth's checkpointing keeps activations below 2 MiB on the card, and the embedded model has no larger ones."""
    from unsloth_zoo import gradient_checkpointing

    gradient_checkpointing.MINIMUM_SIZE = 0


def _offloads() -> int:
    from unsloth_zoo import gradient_checkpointing

    return int(getattr(gradient_checkpointing, "OFFLOAD_GENERATION", None) or 0)


def _workload(config: RunConfig, policy: Policy) -> BenchWorkload:
    from lowmem_rl.entrypoints.preflight import load_examples
    from lowmem_rl.tasks.task_registry import load_task
    from lowmem_rl_bench.step.bench_workload import WorkloadShape, make_workload

    shape = WorkloadShape(PROMPTS, GROUP, PROMPT_TOKENS, COMPLETION_TOKENS, dead_share=0.25)
    examples, _ = load_examples(config, load_task(config.task), {})
    stop = policy.stop_ids | set(policy.tokenizer.all_special_ids)
    words = [i for i in range(len(policy.tokenizer)) if i not in stop]
    return make_workload(shape, examples, policy.tokenize, words, policy.tokenizer.eos_token_id, seed=0)


def _trainer(
    config: RunConfig, policy: Policy, recorded: RecordedCompletions, kept: list[Numbers], out: Path
) -> tuple[Any, Any]:
    """Returns the trainer, which appends each step's gradients to `kept`, and its sampler."""
    from transformers import TrainerCallback

    from lowmem_rl_bench.step import stacks
    from lowmem_rl_bench.step.arms import OURS

    class Keeps(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kept.append(_flat({name: weight.grad for name, weight in stacks.adapter_of(policy.model).items()}))

    sampler = _replay(config, policy, recorded)
    training = stacks.TrainerSpec(config, recorded.examples, [recorded], [Keeps()], out)
    return stacks.build(OURS, policy, sampler, training), sampler


def _replay(config: RunConfig, policy: Policy, recorded: RecordedCompletions) -> Any:
    from lowmem_rl.engine.backend import SamplingBackend, build
    from lowmem_rl.engine.continuous_batching import sample
    from lowmem_rl.engine.row_length import training_row
    from lowmem_rl.engine.sampler import Sampler

    class Replay(Sampler):
        """Reads the recorded tokens."""

        log_probs: Numbers

        def sample(self, prompts: Any, streams: Any, params: Any, limits: Any, states: Any = None) -> Any:
            decoder = build(self.policy, self.backend.weights, training_row(self.config))
            found = sample(decoder, prompts, streams, params, limits, recorded.completions(prompts), states)
            self.log_probs = numpy.array([one for row in found for one in row.log_probs], dtype=numpy.float32)
            return found

    return Replay(policy, config, backend=SamplingBackend("lowmem", "quantized", "replayed"))


def _training_log_probs(policy: Policy, workload: BenchWorkload) -> Numbers:
    from lowmem_rl.engine.logprobs import completion_log_probs

    rows = [(group.prompt_ids, ids) for group in workload.groups for ids in group.completions]
    return numpy.array([one for row in completion_log_probs(policy, rows) for one in row], dtype=numpy.float32)


def _reference(rollout: Mapping[str, Any]) -> dict[str, Numbers]:
    """Returns the reference's log-probs of the completions' tokens, row after row; none without a KL penalty.

    TRL's (rows, completion tokens) begin at the completion, Unsloth's at the end of the row's own prompt: rows are
    packed to the left, and the width holds the longest padding of a prompt, too.
    """
    found = rollout.get("ref_per_token_logps")
    if found is None:
        return {}
    padding = (rollout["prompt_mask"] == 0).sum(1).tolist()
    lengths = rollout["completion_mask"].sum(1).tolist()
    wider = found.shape[1] - rollout["completion_ids"].shape[1]
    first = [wider - pad if wider else 0 for pad in padding]
    rows = [found[i, start : start + length] for i, (start, length) in enumerate(zip(first, lengths, strict=True))]
    return {"reference": numpy.concatenate([row.float().cpu().numpy() for row in rows])}


def _flat(tensors: Mapping[str, Any]) -> Numbers:
    """Returns all of them as one vector, by name."""
    return numpy.concatenate([tensors[name].detach().float().cpu().numpy().ravel() for name in sorted(tensors)])


def _update_of(model: Any) -> Update:
    if getattr(model, "_unsloth_prefix_grouper_grad_verified", None):
        return "prefix"
    return "packed" if getattr(model, "_unsloth_seq_packing_grad_ok", None) else "padded"
