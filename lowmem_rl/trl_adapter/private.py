"""The private members of others that this room uses, and why. No other room may name one.

`tests/contracts/test_stack.py` checks each entry, with its parameters, against plain TRL and against the trainer that
Unsloth writes over it: an upgrade fails a test and not a run.
"""

from collections.abc import Mapping

TRL_PRIVATE: Mapping[str, str] = {
    "_buffered_inputs": "the rollout that the step learns from, as our micro-batches",
    "_calculate_rewards": "scores are passed to the hooks",
    "_clip_grad_norm": "the gradient, before an optimizer step that may be repeated",
    "_generate_and_score_completions": "a round of sampling, timed and split into our micro-batches",
    "_generate_single_turn": "our engine samples",
    "_get_per_token_logps_and_entropies": "scored in parts; on a CPU prompts are shared",
    "_get_train_sampler": "draws the orders of the epochs that are over",
    "_globalstep_last_logged": "whether the row of a step is begun",
    "_load_from_checkpoint": "loads into the present adapter",
    "_load_rng_state": "the last thing that is restored",
    "_maybe_log_save_evaluate": "the first moment at which a step is over for TRL, too",
    "_metrics": "what TRL has collected for the step's row",
    "_prepare_inputs": "leaves a micro-batch as it is",
    "_save_optimizer_and_scheduler": "a part of a checkpoint",
    "_save_scaler": "a part of a checkpoint",
    "_step": "TRL's count of micro-batches",
    "_tokenize_prompts": "prompts are rendered once",
}

TORCH_PRIVATE: Mapping[str, str] = {
    "_forward_hooks": "of a module: those that make the embeddings' output need a gradient are removed",
    "_last_lr": "of a scheduler: the rate that is logged after a rollback",
    "_step_supports_amp_scaling": "of an optimizer: accelerate has to see a step that the scaler skips",
}
