"""The overrides of verl's `ppo_trainer.yaml` that make the run, by key."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.scale_out.cluster import Cluster
from lowmem_rl.scale_out.hydra_text import Value
from lowmem_rl.scale_out.unused_keys import is_whole
from lowmem_rl.scale_out.verl_keys import steps_of_rollout

Overrides = Mapping[str, Value]

_LOSSES = {
    "dapo": "token-mean",
    "bnpo": "token-mean",
    "grpo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
_NO_DUAL_CLIP = 1e9
"""TRL has no dual clip. verl's default of 3 changes off-policy gradients of negative advantages by up to 99 %."""
_SAVE_ROLLOUTS = 50
_ACTOR, _ROLLOUT, _MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))


def verl_overrides(config: RunConfig, cluster: Cluster, model: str, depth: int, examples: int) -> dict[str, Value]:
    """Returns the overrides of a run that verl can do, all but the places of files.

    `model` is the name or the folder of its weights, `depth` the number of its layers, `examples` the rows of its data.
    """
    return {
        **_data(config),
        **_model(config, model, depth),
        **_actor(config, cluster),
        **_optimizer(config),
        **_rollout(config),
        **_algorithm(config),
        **_trainer(config, cluster, examples),
    }


def placed(folder: Path, *, has_adapter: bool) -> dict[str, Value]:
    """Returns the overrides that name files in the folder of the run, known when it starts."""
    places: dict[str, Value] = {
        "data.train_files": str(folder / "data" / "train.parquet"),
        "data.val_files": str(folder / "data" / "test.parquet"),
        "reward.custom_reward_function.path": str(folder / "reward.py"),
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.rollout_data_dir": str(folder / "rollouts"),
    }
    return places | ({f"{_MODEL}.lora_adapter_path": str(folder / "adapter")} if has_adapter else {})


def _data(config: RunConfig) -> Overrides:
    grpo = config.grpo
    return {
        "data.train_batch_size": grpo.prompts_per_step * grpo.steps_per_rollout,
        "data.max_prompt_length": grpo.max_prompt_tokens,
        "data.max_response_length": grpo.max_completion_tokens,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.shuffle": config.curriculum.by == "none",
        "data.seed": config.seed,
    }


def _model(config: RunConfig, model: str, depth: int) -> Overrides:
    adapter: Overrides = {
        f"{_MODEL}.lora_rank": config.adapter.rank,
        f"{_MODEL}.lora_alpha": config.adapter.alpha,
        f"{_MODEL}.target_modules": _targets(config, depth),
    }
    return {
        f"{_MODEL}.path": model,
        f"{_MODEL}.enable_gradient_checkpointing": config.checkpointing != "none",
        **({f"{_MODEL}.lora_rank": 0} if is_whole(config) else adapter),
    }


def _targets(config: RunConfig, depth: int) -> Value:
    """Returns the names of the adapted layers; in some decoder layers only, PEFT's pattern of whole names."""
    layers, targets = layers_of(config.trainable.layers, depth), config.adapter.targets
    if len(layers) == depth:
        return list(targets)
    return rf".*\.layers\.({'|'.join(map(str, layers))})\..*\.({'|'.join(targets)})"


def _actor(config: RunConfig, cluster: Cluster) -> Overrides:
    grpo = config.grpo
    high = grpo.epsilon if grpo.epsilon_high is None else grpo.epsilon_high
    scale: Overrides = {f"{_ACTOR}.loss_scale_factor": grpo.max_completion_tokens} if grpo.loss == "dr_grpo" else {}
    return {
        f"{_ACTOR}.ppo_mini_batch_size": grpo.prompts_per_step,
        f"{_ACTOR}.ppo_micro_batch_size_per_gpu": config.micro_batch,
        f"{_ACTOR}.ppo_epochs": grpo.passes_per_rollout,
        f"{_ACTOR}.loss_agg_mode": _LOSSES[grpo.loss],
        **scale,
        f"{_ACTOR}.clip_ratio": grpo.epsilon,
        f"{_ACTOR}.clip_ratio_low": grpo.epsilon,
        f"{_ACTOR}.clip_ratio_high": high,
        f"{_ACTOR}.clip_ratio_c": _NO_DUAL_CLIP,
        f"{_ACTOR}.entropy_coeff": 0,
        f"{_ACTOR}.use_kl_loss": grpo.beta > 0,
        f"{_ACTOR}.kl_loss_coef": grpo.beta,
        f"{_ACTOR}.kl_loss_type": "low_var_kl",
        f"{_ACTOR}.data_loader_seed": config.seed,
        # In bfloat16 verl rounds the adapter, too: it resolves 2^-8 of a weight.
        f"{_ACTOR}.fsdp_config.model_dtype": "fp32",
    }


def _optimizer(config: RunConfig) -> Overrides:
    optimizer, key = config.optimizer, f"{_ACTOR}.optim"
    is_small = optimizer.name.endswith("8bit")
    return {
        f"{key}.optimizer": "AdamW8bit" if is_small else "AdamW",
        f"{key}.optimizer_impl": "bitsandbytes.optim" if is_small else "torch.optim",
        f"{key}.lr": optimizer.learning_rate,
        f"{key}.betas": [optimizer.beta1, optimizer.beta2],
        f"{key}.weight_decay": optimizer.weight_decay,
        f"{key}.clip_grad": optimizer.max_grad_norm,
        f"{_ACTOR}.grad_clip": optimizer.max_grad_norm,
        f"{key}.lr_scheduler_type": optimizer.schedule,
        f"{key}.lr_warmup_steps": math.ceil(optimizer.warmup_steps / steps_of_rollout(config)),
        f"{key}.min_lr_ratio": 0.0,
    }


def _rollout(config: RunConfig) -> Overrides:
    rollout = config.rollout
    return {
        f"{_ROLLOUT}.name": "vllm",
        f"{_ROLLOUT}.n": config.grpo.group_size,
        f"{_ROLLOUT}.temperature": rollout.temperature,
        f"{_ROLLOUT}.top_p": rollout.top_p,
        f"{_ROLLOUT}.top_k": rollout.top_k or -1,
        f"{_ROLLOUT}.seed": config.seed,
        f"{_ROLLOUT}.tensor_model_parallel_size": 1,
        # vLLM reads the frozen weights from their files; what learns is sent to it.
        f"{_ROLLOUT}.load_format": "dummy" if is_whole(config) else "safetensors",
        f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu": config.micro_batch,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": config.micro_batch,
        f"{_ROLLOUT}.val_kwargs.temperature": 0,
        f"{_ROLLOUT}.val_kwargs.do_sample": False,
        f"{_ROLLOUT}.val_kwargs.n": 1,
    }


def _algorithm(config: RunConfig) -> Overrides:
    return {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": config.grpo.scale_rewards == "group",
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": config.grpo.resample_rounds > 0,
    }


def _trainer(config: RunConfig, cluster: Cluster, examples: int) -> Overrides:
    rollouts = math.ceil(config.grpo.steps / steps_of_rollout(config))
    prompts = config.grpo.prompts_per_step * config.grpo.steps_per_rollout

    def in_rollouts(steps: int) -> int:
        return max(1, round(steps / steps_of_rollout(config)))

    return {
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.name": "naive",
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus,
        "trainer.total_training_steps": rollouts,
        # Twice what is needed: an epoch is whole rollouts, and rows may be left out as too long when verl starts.
        "trainer.total_epochs": max(2, 2 * math.ceil(rollouts * prompts / examples)),
        # Also after the last rollout, whatever its number; -1 would be only before the first.
        "trainer.test_freq": in_rollouts(config.eval.every) if config.eval.every else rollouts,
        "trainer.save_freq": in_rollouts(config.logging.checkpoint_every)
        if config.logging.checkpoint_every
        else _SAVE_ROLLOUTS,
        "trainer.max_actor_ckpt_to_keep": config.logging.keep_checkpoints,
        "trainer.resume_mode": "auto",
        "trainer.logger": ["console", *config.logging.report_to],
        "trainer.project_name": "lowmem-rl",
        "trainer.experiment_name": re.sub(r"[^\w.-]+", "-", cluster.name),
    }
