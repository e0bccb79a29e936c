"""What TRL, transformers, PEFT and verl call our settings: near names for a key that does not exist."""

OURS = {
    name: tuple(ours.split())
    for names, ours in {
        # trl.GRPOConfig, https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig
        "num_generations generations rollout_n": "grpo.group_size",
        "max_prompt_length": "grpo.max_prompt_tokens",
        "max_completion_length max_response_length max_new_tokens max_tokens": "grpo.max_completion_tokens",
        "max_seq_length max_length max_model_len": "grpo.max_prompt_tokens grpo.max_completion_tokens",
        "num_iterations mu ppo_epochs": "grpo.passes_per_rollout",
        "steps_per_generation": "grpo.steps_per_rollout",
        "generation_batch_size train_batch_size gradient_accumulation_steps": "grpo.prompts_per_step",
        "loss_type": "grpo.loss",
        "kl_coef kl_loss_coef": "grpo.beta",
        "clip_range cliprange clip_ratio clip_ratio_low epsilon_low": "grpo.epsilon",
        "clip_ratio_high": "grpo.epsilon_high",
        "mask_truncated_completions": "grpo.mask_truncated",
        "dynamic_sampling": "grpo.resample_rounds",
        "use_vllm vllm_mode": "rollout.engine",
        "reward_funcs reward_funs reward_functions reward_weights": "rewards",
        # transformers.TrainingArguments
        "max_steps num_steps total_training_steps num_train_epochs total_epochs epochs": "grpo.steps",
        "per_device_train_batch_size batch_size micro_batch_size ppo_micro_batch_size_per_gpu": "memory.micro_batch",
        "per_device_eval_batch_size": "eval.batch",
        "lr": "optimizer.learning_rate",
        "optim": "optimizer.name",
        "lr_scheduler_type lr_scheduler scheduler": "optimizer.schedule",
        "warmup_ratio warmup lr_warmup_steps": "optimizer.warmup_steps",
        "adam_beta1": "optimizer.beta1",
        "adam_beta2": "optimizer.beta2",
        "grad_clip clip_grad gradient_clipping": "optimizer.max_grad_norm",
        "gradient_checkpointing use_gradient_checkpointing": "memory.checkpointing",
        "bf16 fp16 torch_dtype": "model.dtype",
        "save_steps save_freq": "logging.checkpoint_every",
        "save_total_limit": "logging.keep_checkpoints",
        "eval_steps test_freq": "eval.every",
        "data_seed random_state": "seed",
        # transformers' from_pretrained, peft.LoraConfig, datasets
        "model_name_or_path model_name model_id model_path": "model.name",
        "model_revision": "model.revision",
        "load_in_4bit load_in_8bit load_in_16bit": "model.bits",
        "r lora_r lora_rank": "adapter.rank",
        "lora_alpha": "adapter.alpha",
        "lora_dropout": "adapter.dropout",
        "target_modules lora_target_modules": "adapter.targets",
        "peft_use_dora": "adapter.use_dora",
        "peft_use_rslora": "adapter.use_rslora",
        "finetuning_type tuner_type train_type": "trainable.method adapter.peft_type",
        "projection_seed": "seed",
        "dataset_name dataset train_dataset": "task.name task.hub",
        "dataset_config": "task.subset",
        "train_files train_file": "task.path",
        "system_prompt": "task.prompt",
    }.items()
    for name in names.split()
}
"""Their name -> the keys that set the same."""

OPTIONS = {"output_dir": "--out DIR", "resume_from_checkpoint": "--resume"}
"""Their name -> the option of `lowmem-rl train`: a run's configuration has no such key."""

_START = (
    "leave it out: an adapter starts at the base model. PiSSA, OLoRA, CorDA, EVA and LoftQ start from principal "
    "directions or change the base weights, which are the KL reference; in RL such starts do worse (arXiv 2511.08567)"
)
REFUSED = dict.fromkeys(("init_lora_weights", "init_weights", "init", "pissa_init", "loftq_config"), _START)
"""Their name -> why there is no such key."""
