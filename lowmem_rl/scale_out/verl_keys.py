"""`RunConfig` -> verl 0.9: PPO's trainer with GRPO's advantages, FSDP and vLLM.

Names are keys of verl's `ppo_trainer.yaml`, read in the wheel of 0.9.1. What is equal is so by verl's own code, run
without a card: `tests/verl`.
"""

from collections.abc import Mapping

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.scale_out.counterparts import Counterpart, Deviation, changed, equal, lacking
from lowmem_rl.scale_out.shared_keys import SHARED_DEVIATIONS, SHARED_TABLE
from lowmem_rl.scale_out.unused_keys import UNUSED, is_whole

_MODEL, _ACTOR, _ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "rollout"))
_OPTIM = f"{_ACTOR}.optim"
_DATA = equal("data.train_files")
_SAMPLED = "vLLM samples in bfloat16; the update computes the probabilities again"

TABLE: Mapping[str, Counterpart] = {
    **SHARED_TABLE,
    "seed": changed("data.seed", "other random numbers, and another order of the prompts if it is random"),
    "model.name": equal(f"{_MODEL}.path"),
    "model.revision": equal(f"{_MODEL}.path", "the folder of that revision"),
    "model.bits": equal(f"{_ACTOR}.fsdp_config.model_dtype"),
    "model.checkpoint": equal(f"{_MODEL}.path"),
    "model.dtype": changed(
        f"{_ACTOR}.fsdp_config.model_dtype",
        "weights and adapter in float32, computed in bfloat16; a bfloat16 model "
        "would round the adapter, and lose small updates",
    ),
    "adapter.peft_type": equal(f"{_MODEL}.lora_rank"),
    "adapter.rank": equal(f"{_MODEL}.lora_rank"),
    "adapter.alpha": equal(f"{_MODEL}.lora_alpha"),
    "adapter.use_rslora": equal("", "off"),
    "adapter.use_dora": equal("", "off"),
    "adapter.rank_pattern": equal("", "none"),
    "adapter.alpha_pattern": equal("", "none"),
    "adapter.dropout": equal("", "none"),
    "adapter.targets": equal(f"{_MODEL}.target_modules"),
    "trainable.method": equal(f"{_MODEL}.lora_rank", "0 if whole weights learn"),
    "trainable.layers": equal(f"{_MODEL}.target_modules"),
    "trainable.modules": equal("", "all"),
    "trainable.extra": equal("", "all weights learn"),
    "trainable.dtype": equal(f"{_ACTOR}.fsdp_config.model_dtype"),
    "grpo.group_size": equal(f"{_ROLLOUT}.n"),
    "grpo.prompts_per_step": equal(f"{_ACTOR}.ppo_mini_batch_size", "in prompts, as here"),
    "grpo.steps": equal("trainer.total_training_steps", "verl counts rollouts"),
    "grpo.steps_per_rollout": equal("data.train_batch_size", "prompts of a rollout"),
    "grpo.passes_per_rollout": equal(f"{_ACTOR}.ppo_epochs"),
    "grpo.max_prompt_tokens": equal("data.max_prompt_length", "longer prompts are left out"),
    "grpo.max_completion_tokens": equal("data.max_response_length"),
    "grpo.loss": equal(f"{_ACTOR}.loss_agg_mode", "what it divides by is counted over all cards"),
    "grpo.beta": equal(
        f"{_ACTOR}.kl_loss_coef", "k3 as here, but cut at 10; the reference is the model without adapter"
    ),
    "grpo.epsilon": equal(f"{_ACTOR}.clip_ratio_low", "clip_ratio_c is out of reach: TRL has no dual clip"),
    "grpo.epsilon_high": equal(f"{_ACTOR}.clip_ratio_high"),
    "grpo.scale_rewards": equal("algorithm.norm_adv_by_std_in_grpo"),
    "grpo.resample_rounds": equal("algorithm.filter_groups.enable", "off"),
    "grpo.mask_truncated": equal("", "completions at the limit count"),
    "rollout.engine": changed(f"{_ROLLOUT}.name", _SAMPLED),
    "rollout.weights": changed(f"{_ROLLOUT}.dtype", _SAMPLED),
    "rollout.temperature": equal(f"{_ROLLOUT}.temperature"),
    "rollout.top_p": equal(f"{_ROLLOUT}.top_p"),
    "rollout.top_k": equal(f"{_ROLLOUT}.top_k", "-1 for all"),
    "rollout.min_p": equal("", "none"),
    "rollout.repetition_penalty": equal("", "none"),
    "optimizer.name": equal(f"{_OPTIM}.optimizer"),
    "optimizer.learning_rate": equal(f"{_OPTIM}.lr"),
    "optimizer.beta1": equal(f"{_OPTIM}.betas"),
    "optimizer.beta2": equal(f"{_OPTIM}.betas"),
    "optimizer.weight_decay": equal(f"{_OPTIM}.weight_decay"),
    "optimizer.max_grad_norm": equal(f"{_OPTIM}.clip_grad"),
    "optimizer.schedule": equal(f"{_OPTIM}.lr_scheduler_type"),
    "optimizer.warmup_steps": equal(f"{_OPTIM}.lr_warmup_steps"),
    "memory.micro_batch": equal(f"{_ACTOR}.ppo_micro_batch_size_per_gpu", "it changes no gradient"),
    "memory.rollout_rows": lacking("vLLM plans its own waves"),
    "memory.checkpointing": equal(f"{_MODEL}.enable_gradient_checkpointing", "it changes no gradient"),
    "memory.kept_states": lacking("all layers are computed: the same gradient"),
    "task.name": _DATA,
    "task.path": _DATA,
    "task.hub": _DATA,
    "task.subset": _DATA,
    "task.columns": _DATA,
    "task.splits": _DATA,
    "task.answer": _DATA,
    "task.max_bad_share": _DATA,
    "task.eval_share": _DATA,
    "task.prompt": _DATA,
    "task.percent": _DATA,
    "task.boxes": _DATA,
    "task.levels": _DATA,
    "task.limit": _DATA,
    "curriculum.by": equal("data.shuffle", "the rows of the data are in that order; if it is none, they are shuffled"),
    "curriculum.how": equal("data.train_files"),
    "curriculum.rates": equal("data.train_files"),
    "rewards": equal("reward.custom_reward_function", "the same code scores; each reward is a metric of its own"),
    "eval.examples": changed(
        "data.val_files",
        "greedy, as here, without prompts beyond the limit; `acc` and `strict` are the run's own grader",
    ),
    "eval.every": changed("trainer.test_freq", "in rollouts, and always on all held-out examples"),
    "eval.quick_examples": lacking("all held-out examples are answered each time"),
    "eval.batch": lacking("vLLM plans its own batches"),
    "eval.samples": lacking("one greedy answer each"),
    "eval.tasks": lacking("only the run's own task is evaluated"),
    "health.max_reward_error_share": lacking("a reward that fails is reported and counts 0"),
    "logging.report_to": equal("trainer.logger", "console in any case"),
    "logging.samples_every": changed("trainer.rollout_data_dir", "all completions of each rollout, in rollouts/"),
    "logging.checkpoint_every": changed("trainer.save_freq", "in rollouts; run.sh continues after the newest one"),
    "logging.keep_checkpoints": equal("trainer.max_actor_ckpt_to_keep"),
}


def steps_of_rollout(config: RunConfig) -> int:
    """Returns the optimizer steps between two rollouts; verl's schedules and intervals count rollouts."""
    return config.grpo.steps_per_rollout * config.grpo.passes_per_rollout


def _is_subset(config: RunConfig) -> bool:
    trainable = config.trainable
    return is_whole(config) and (trainable.layers != "all" or bool(trainable.modules))


DEVIATIONS = (
    *UNUSED,
    *SHARED_DEVIATIONS,
    Deviation(
        "start_from",
        lambda config: config.start_from is not None,
        lacking("the KL reference is the base model; so is the start, without --continue"),
        instead={"start_from": None},
    ),
    Deviation(
        "optimizer.name",
        lambda config: config.optimizer.name == "sgd",
        lacking("AdamW only"),
        instead={"optimizer.name": "adamw_torch"},
    ),
    Deviation(
        "model.bits",
        lambda config: config.model.bits == 4,
        changed(
            f"{_ACTOR}.fsdp_config.model_dtype",
            "a 16-bit base, which verl has alone: its outputs are not quite those of the base in 4 bit",
        ),
    ),
    Deviation(
        "model.checkpoint",
        lambda config: config.model.checkpoint == "dynamic",
        changed(f"{_MODEL}.path", "the 16-bit original"),
    ),
    Deviation(
        "adapter.peft_type",
        lambda config: config.adapter.peft_type == "tinylora",
        lacking("LoRA alone"),
        instead={"adapter.peft_type": "lora"},
    ),
    Deviation(
        "adapter.use_rslora",
        lambda config: config.adapter.use_rslora,
        lacking("LoRA is scaled by alpha / rank"),
        instead={"adapter.use_rslora": False},
    ),
    Deviation(
        "adapter.use_dora",
        lambda config: config.adapter.use_dora,
        lacking("no magnitudes learn"),
        instead={"adapter.use_dora": False},
    ),
    Deviation(
        "adapter.rank_pattern",
        lambda config: bool(config.adapter.rank_pattern),
        lacking("one rank for all modules"),
        instead={"adapter.rank_pattern": {}},
    ),
    Deviation(
        "adapter.alpha_pattern",
        lambda config: bool(config.adapter.alpha_pattern),
        lacking("one alpha for all modules"),
        instead={"adapter.alpha_pattern": {}},
    ),
    Deviation(
        "adapter.dropout",
        lambda config: config.adapter.dropout > 0,
        lacking("no dropout"),
        instead={"adapter.dropout": 0.0},
    ),
    Deviation(
        "trainable.method",
        _is_subset,
        lacking("whole weights learn in all layers or in none"),
        fix='Set trainable.method="lora", which can be in single layers, or trainable.layers="all" without modules.',
    ),
    Deviation(
        "trainable.extra",
        lambda config: is_whole(config) and not {"embed_tokens", "norm"} <= {*config.trainable.extra},
        changed(f"{_MODEL}.lora_rank", "embeddings, head and the last norm learn, too"),
    ),
    Deviation(
        "grpo.steps",
        lambda config: config.grpo.steps % steps_of_rollout(config) > 0,
        changed("trainer.total_training_steps", "verl counts whole rollouts: the last one is used to its end"),
    ),
    Deviation(
        "grpo.loss",
        lambda config: config.grpo.loss == "bnpo",
        changed(f"{_ACTOR}.loss_agg_mode", "token-mean divides by the tokens of the step, not of each micro-batch"),
    ),
    Deviation(
        "grpo.beta",
        lambda config: config.grpo.beta == 0,
        equal(f"{_ACTOR}.use_kl_loss", "off"),
    ),
    Deviation(
        "grpo.scale_rewards",
        lambda config: config.grpo.scale_rewards == "batch",
        lacking("advantages are divided by the deviation of the group, or by nothing"),
        instead={"grpo.scale_rewards": "group"},
    ),
    Deviation(
        "grpo.scale_rewards",
        lambda config: config.grpo.scale_rewards == "group",
        changed("algorithm.norm_adv_by_std_in_grpo", "1e-6 is added to the deviation, not 1e-4: 2e-4 of an advantage"),
    ),
    Deviation(
        "grpo.resample_rounds",
        lambda config: config.grpo.resample_rounds > 0,
        changed(
            "algorithm.filter_groups.enable",
            "samples on until all groups of a step have signal, in as many rounds as that takes",
        ),
    ),
    Deviation(
        "grpo.mask_truncated",
        lambda config: config.grpo.mask_truncated,
        lacking("completions at the limit count; DAPO's overlong penalty is another thing"),
        instead={"grpo.mask_truncated": False},
    ),
    Deviation(
        "rollout.min_p",
        lambda config: bool(config.rollout.min_p),
        lacking("no min_p"),
        instead={"rollout.min_p": None},
    ),
    Deviation(
        "rollout.repetition_penalty",
        lambda config: config.rollout.repetition_penalty != 1.0,
        lacking("no penalty"),
        instead={"rollout.repetition_penalty": 1.0},
    ),
    Deviation(
        "optimizer.name",
        lambda config: config.optimizer.name == "paged_adamw_8bit",
        equal(f"{_OPTIM}.optimizer", "not paged: its states are sharded over the cards"),
    ),
    Deviation(
        "optimizer.weight_decay",
        lambda config: config.optimizer.weight_decay > 0 and is_whole(config),
        changed(f"{_OPTIM}.weight_decay", "embeddings, norms and biases decay, too"),
    ),
    Deviation(
        "optimizer.schedule",
        lambda config: config.optimizer.schedule in ("linear", "multistep"),
        lacking("constant and cosine only"),
        instead={"optimizer.schedule": "constant", "optimizer.milestones": ()},
    ),
    Deviation(
        "optimizer.schedule",
        lambda config: config.optimizer.schedule == "cosine" and steps_of_rollout(config) > 1,
        changed(f"{_OPTIM}.lr_scheduler_type", "the rate changes once a rollout"),
    ),
    Deviation(
        "optimizer.warmup_steps",
        lambda config: config.optimizer.warmup_steps > 0 and steps_of_rollout(config) > 1,
        changed(f"{_OPTIM}.lr_warmup_steps", "in whole rollouts: the rate changes once a rollout"),
    ),
    Deviation(
        "eval.every",
        lambda config: config.eval.every == 0,
        equal("trainer.test_freq", "before and after the run, as here"),
    ),
    Deviation(
        "logging.checkpoint_every",
        lambda config: config.logging.checkpoint_every == 0,
        changed(
            "trainer.save_freq", "every 50 rollouts instead of every ten minutes; run.sh continues after the newest one"
        ),
    ),
)
