"""The one learning-rate schedule that transformers lacks: multi-step, after DeepSeek-LLM (arXiv 2401.02954)."""

from lowmem_rl.config.run_config import OptimizerConfig


def multistep_factor(step: int, optimizer: OptimizerConfig) -> float:
    """Returns the share of the peak learning rate at `step` (from 0): warm-up, then `decay` at each milestone."""
    warmup = min(1.0, (step + 1) / optimizer.warmup_steps) if optimizer.warmup_steps else 1.0
    passed = sum(step >= milestone for milestone in optimizer.milestones)
    return float(warmup * optimizer.decay**passed)
