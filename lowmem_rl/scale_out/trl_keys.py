"""`RunConfig` -> TRL 1.15 with accelerate: plain `GRPOTrainer`, a copy of the model on each card.

Names are arguments of `trl.GRPOConfig`, `peft.LoraConfig` and transformers' `from_pretrained`. What is equal is so by
the gradient: `tests/train/test_scale_out_trl.py` compares two processes with one and with our own trainer.
"""

from collections.abc import Mapping

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.scale_out.counterparts import Counterpart, Deviation, changed, equal, lacking
from lowmem_rl.scale_out.shared_keys import SHARED_DEVIATIONS, SHARED_TABLE
from lowmem_rl.scale_out.unused_keys import UNUSED, is_whole

_DATA = equal("data/train.parquet")

TABLE: Mapping[str, Counterpart] = {
    **SHARED_TABLE,
    "seed": changed(
        "seed", "same prompts in the same order; the adapter starts and the cards sample at random numbers of their own"
    ),
    "model.name": equal("from_pretrained"),
    "model.revision": equal("revision"),
    "model.bits": equal("BitsAndBytesConfig", "NF4 with double quantisation, or none"),
    "model.checkpoint": equal("BitsAndBytesConfig", "quantised when loaded"),
    "model.dtype": equal("dtype, bf16, fp16", "the adapter learns in float32, which TRL alone would round to bfloat16"),
    "adapter.peft_type": equal("LoraConfig"),
    "adapter.rank": equal("r"),
    "adapter.alpha": equal("lora_alpha"),
    "adapter.use_rslora": equal("use_rslora"),
    "adapter.use_dora": equal("use_dora"),
    "adapter.rank_pattern": equal("rank_pattern"),
    "adapter.alpha_pattern": equal("alpha_pattern"),
    "adapter.dropout": equal("lora_dropout"),
    "adapter.targets": equal("target_modules"),
    "trainable.method": equal("LoraConfig"),
    "trainable.layers": equal("layers_to_transform"),
    "trainable.modules": equal(""),
    "trainable.extra": equal(""),
    "trainable.dtype": equal("dtype"),
    "grpo.group_size": equal("num_generations", "a group may span cards: rewards are gathered before the advantages"),
    "grpo.prompts_per_step": equal(
        "gradient_accumulation_steps", "x per_device_train_batch_size x cards / num_generations"
    ),
    "grpo.steps": equal("max_steps"),
    "grpo.steps_per_rollout": equal("steps_per_generation"),
    "grpo.passes_per_rollout": equal("num_iterations"),
    "grpo.max_prompt_tokens": equal("train.py", "longer prompts are left out"),
    "grpo.max_completion_tokens": equal("max_completion_length"),
    "grpo.loss": equal("loss_type", "what it divides by is gathered over the cards"),
    "grpo.beta": equal("beta", "the reference is the model without the adapter, or with it as it started"),
    "grpo.epsilon": equal("epsilon"),
    "grpo.epsilon_high": equal("epsilon_high"),
    "grpo.scale_rewards": equal("scale_rewards"),
    "grpo.resample_rounds": equal("", "no group is replaced"),
    "grpo.mask_truncated": equal("mask_truncated_completions"),
    "rollout.engine": changed("use_vllm", "transformers' generate samples from the same distribution, more slowly"),
    "rollout.weights": changed(
        "", "the training weights sample, never an expanded copy: slower, and in 4 bit rounded otherwise"
    ),
    "rollout.temperature": equal("temperature"),
    "rollout.top_p": equal("top_p"),
    "rollout.top_k": equal("top_k"),
    "rollout.min_p": equal("min_p"),
    "rollout.repetition_penalty": equal("repetition_penalty"),
    "optimizer.name": equal("optim"),
    "optimizer.learning_rate": equal("learning_rate"),
    "optimizer.beta1": equal("adam_beta1"),
    "optimizer.beta2": equal("adam_beta2"),
    "optimizer.weight_decay": equal("weight_decay"),
    "optimizer.max_grad_norm": equal("max_grad_norm"),
    "optimizer.schedule": equal("lr_scheduler_type"),
    "optimizer.warmup_steps": equal("warmup_steps"),
    "memory.micro_batch": equal("per_device_train_batch_size", "it changes no gradient"),
    "memory.rollout_rows": lacking("a card samples all its completions of a rollout together, which takes more memory"),
    "memory.checkpointing": equal(
        "gradient_checkpointing", "plain recomputation for Unsloth's: it changes no gradient"
    ),
    "memory.kept_states": lacking("all layers are computed: slower, the same gradient"),
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
    "curriculum.by": equal(
        "shuffle_dataset", "the rows of the data are in that order; if it is none, they are shuffled"
    ),
    "curriculum.how": equal("data/train.parquet"),
    "curriculum.rates": equal("data/train.parquet"),
    "rewards": equal("reward_weights", "the same code scores"),
    "eval.examples": changed(
        "data/test.parquet", "not evaluated in the run: `lowmem-rl eval out/adapter` does so after it"
    ),
    "eval.every": lacking("not evaluated in the run"),
    "eval.quick_examples": lacking("not evaluated in the run"),
    "eval.batch": lacking("not evaluated in the run"),
    "eval.samples": lacking("not evaluated in the run"),
    "eval.tasks": lacking("not evaluated in the run"),
    "health.max_reward_error_share": equal("train.py", "counted on each card"),
    "logging.report_to": equal("report_to"),
    "logging.samples_every": lacking("`log_completions` of trl.json prints some"),
    "logging.checkpoint_every": equal("save_steps", "run.sh continues after the newest one; not digit for digit"),
    "logging.keep_checkpoints": equal("save_total_limit"),
}


def _is_off_policy(config: RunConfig) -> bool:
    return config.grpo.steps_per_rollout > 1


DEVIATIONS = (
    *UNUSED,
    *SHARED_DEVIATIONS,
    Deviation(
        "start_from",
        lambda config: config.start_from is not None,
        lacking("start and KL reference are the base model, or with --continue the adapter of the run"),
        instead={"start_from": None},
    ),
    Deviation(
        "model.checkpoint",
        lambda config: config.model.checkpoint == "dynamic",
        changed("BitsAndBytesConfig", "all layers are in 4 bit, also those that Unsloth's upload leaves in 16"),
    ),
    Deviation(
        "adapter.peft_type",
        lambda config: config.adapter.peft_type == "tinylora",
        lacking("PEFT's own TinyLoRA cannot read 4-bit weights"),
        instead={"adapter.peft_type": "lora"},
    ),
    Deviation(
        "trainable.method",
        is_whole,
        lacking("a copy of all whole weights, gradients and states on each card"),
        fix='Set trainable.method="lora", or use --to verl for all layers.',
    ),
    Deviation(
        "grpo.steps_per_rollout",
        _is_off_policy,
        changed("steps_per_generation", "single rows are dealt to the steps of a rollout, not whole groups"),
    ),
    Deviation(
        "grpo.loss",
        lambda config: config.grpo.loss == "bnpo",
        changed("loss_type", "it divides by the tokens of each micro-batch, and other rows share one"),
    ),
    Deviation(
        "grpo.resample_rounds",
        lambda config: config.grpo.resample_rounds > 0,
        lacking("no dynamic sampling"),
        instead={"grpo.resample_rounds": 0},
    ),
    Deviation("rollout.engine", lambda config: config.rollout.engine == "vllm", equal("use_vllm, colocate")),
    Deviation(
        "rollout.engine",
        lambda config: config.rollout.engine == "generate",
        equal("use_vllm", "transformers' generate"),
    ),
    Deviation(
        "optimizer.schedule",
        lambda config: config.optimizer.schedule == "multistep",
        lacking("transformers has no multi-step schedule"),
        instead={"optimizer.schedule": "constant", "optimizer.milestones": ()},
    ),
    Deviation(
        "logging.checkpoint_every",
        lambda config: config.logging.checkpoint_every == 0,
        changed("save_steps", "every 50 steps instead of every ten minutes"),
    ),
)
