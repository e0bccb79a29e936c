"""RunConfig -> the exact arguments of TRL's GRPOConfig, and what the stack would otherwise change.

Pure and without torch, so that `train --dry-run` prints what training gets. Values that Unsloth fills in if they are
unset, and that change a run (clip range, masking, batch shape, NaN filter, vLLM's correction), are given explicitly:
what the config says is what runs, on a GPU and on a CPU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import OptimizerConfig, RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.storage.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A setting that cannot be kept as it is on this device, and why."""

    key: str
    wanted: object
    used: object
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.wanted} -> {self.used} ({self.why})"


def grpo_arguments(config: RunConfig, device: Device, out: Path) -> dict[str, Any]:
    """Returns the keyword arguments of `trl.GRPOConfig` for a run in `out`; `unsloth_arguments` has Unsloth's."""
    return {
        **_loop_arguments(config, out),
        **_group_arguments(config),
        **_sampling_arguments(config),
        **_loss_arguments(config),
        **_optimizer_arguments(config.optimizer, device),
        **device_arguments(config, device),
    }


def unsloth_arguments(config: RunConfig, device: Device) -> dict[str, Any]:
    """Returns the arguments that only Unsloth's rewritten GRPOConfig knows; it replaces TRL's on a GPU alone."""
    # Unset, Unsloth fills the card with it, past what was planned. `unsloth_logit_chunk_multiplier` is not given:
    # the fused log-probs never read it, and size their chunks by what is free.
    return {"unsloth_grpo_mini_batch": mini_batches_per_rollout(config)} if device.is_gpu else {}


def mini_batches_per_rollout(config: RunConfig) -> int:
    """Forward passes into which Unsloth cuts the log-probs of a whole rollout: a count, whatever its name says.

    Rows of such a pass are `ceil(rows / count)` (unsloth/models/rl_replacements.py). If old or reference log-probs
    are computed, the count keeps them at the micro-batch; otherwise it is 1, because it cuts the padded backward, too.
    """
    grpo = config.grpo
    computed = grpo.beta > 0 or grpo.steps_per_rollout * grpo.passes_per_rollout > 1
    return -(-config.rows_per_rollout // config.micro_batch) if computed else 1


def adjustments(config: RunConfig, device: Device) -> list[Adjustment]:
    """Returns every setting that this device cannot keep."""
    found = []
    if (used := optimizer_of(config.optimizer, device)) != config.optimizer.name:
        found.append(Adjustment("optimizer.name", config.optimizer.name, used, "states are in host RAM already"))
    if not device.is_gpu and config.checkpointing == "unsloth":
        found.append(Adjustment("memory.checkpointing", "unsloth", "plain", "activations are in host RAM already"))
    return found


def optimizer_of(optimizer: OptimizerConfig, device: Device) -> str:
    """Returns the optimizer's name as it runs here: pages move between a GPU and the host."""
    return optimizer.name if device.is_gpu else optimizer.name.removeprefix("paged_")


def micro_batches_per_step(config: RunConfig) -> int:
    """Forward and backward passes of one optimizer step."""
    return config.rows_per_step // config.micro_batch


def _loop_arguments(config: RunConfig, out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(RunDir(out).trackers),
        "project": "lowmem-rl",
        "run_name": out.name,
        "seed": config.seed,
        "max_steps": config.grpo.steps,
        "shuffle_dataset": config.curriculum.by == "none",
        "logging_steps": 1,
        "save_strategy": "no",  # the adapter is saved by us, in the run directory
        "report_to": "none",  # `Trackers.attach` adds them: the trainer would fall with one
        "disable_tqdm": True,
        "log_completions": False,
        "logging_nan_inf_filter": False,  # a NaN loss must be seen, not averaged away
    }


def _group_arguments(config: RunConfig) -> dict[str, Any]:
    micro_batches = micro_batches_per_step(config)
    return {
        "num_generations": config.grpo.group_size,
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": micro_batches,
        # Always set: unset, Unsloth may raise the batch to the group size.
        "steps_per_generation": micro_batches * config.grpo.steps_per_rollout,
        "num_iterations": config.grpo.passes_per_rollout,
        "max_completion_length": config.grpo.max_completion_tokens,
    }


def _sampling_arguments(config: RunConfig) -> dict[str, Any]:
    rollout = config.rollout
    return {
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "min_p": rollout.min_p,
        "repetition_penalty": rollout.repetition_penalty,
        "use_vllm": rollout.engine == "vllm",
        "vllm_mode": "colocate",
        "vllm_importance_sampling_correction": False,
    }


def _loss_arguments(config: RunConfig) -> dict[str, Any]:
    grpo = config.grpo
    return {
        "loss_type": grpo.loss,
        "beta": grpo.beta,
        "epsilon": grpo.epsilon,
        "epsilon_high": grpo.epsilon if grpo.epsilon_high is None else grpo.epsilon_high,
        "scale_rewards": grpo.scale_rewards,
        "mask_truncated_completions": grpo.mask_truncated,
        "reward_weights": [weight for weight in config.rewards.values() if weight != 0],
    }


def _optimizer_arguments(optimizer: OptimizerConfig, device: Device) -> dict[str, Any]:
    return {
        "optim": optimizer_of(optimizer, device),
        "learning_rate": optimizer.learning_rate,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        # transformers has no multi-step schedule: there the trainer's create_scheduler takes over.
        "lr_scheduler_type": _SCHEDULES[optimizer.schedule],
        "warmup_steps": optimizer.warmup_steps,
    }


def device_arguments(config: RunConfig, device: Device) -> dict[str, Any]:
    """Returns the arguments, of any trainer, that depend on where it computes."""
    return {
        "bf16": device.dtype == "bfloat16",
        "fp16": device.dtype == "float16",
        "gradient_checkpointing": config.checkpointing != "none",
        "dataloader_pin_memory": device.is_gpu,
        **({} if device.is_gpu else {"use_cpu": True}),
    }


_SCHEDULES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "multistep": "constant_with_warmup",
}
