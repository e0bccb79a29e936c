"""A GRPO step of ours against the same step of plain TRL and of Unsloth: same tokens, same gradient, other seconds."""
