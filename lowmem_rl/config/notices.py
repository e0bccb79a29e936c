"""Settings that a run may have and that do nothing in it: no mistake, but hardly meant."""

from collections.abc import Iterator

from lowmem_rl.config.run_config import RunConfig


def notices(config: RunConfig) -> Iterator[str]:
    """Yields what the schedule of a run does only after the run's last step, and what its adapter asks for."""
    yield from _adapter_notices(config)
    steps, optimizer = config.grpo.steps, config.optimizer
    if optimizer.warmup_steps >= steps:
        yield (
            f"the run of {steps} steps ends within its warm-up of {optimizer.warmup_steps}: it never has the learning "
            f"rate {optimizer.learning_rate:g} (optimizer.warmup_steps)"
        )
    late = [str(milestone) for milestone in optimizer.milestones if milestone >= steps]
    if late:
        yield f"the run of {steps} steps ends before the milestones {', '.join(late)} (optimizer.milestones)"


_TINYLORA_RATE = 1e-3
"""Below it a step of Adam moves TinyLoRA's numbers by less than a thousandth each, of about 1 that they need."""


def _adapter_notices(config: RunConfig) -> Iterator[str]:
    adapter, rate = config.adapter, config.optimizer.learning_rate
    if config.trainable.method == "full":
        return
    if adapter.peft_type == "tinylora" and rate < _TINYLORA_RATE:
        yield (
            f"TinyLoRA's numbers start at 0 and hardly move at the learning rate {rate:g}: "
            "try 0.01 (optimizer.learning_rate)"
        )
    if adapter.use_dora and (config.rollout.weights == "quantized" or config.rollout.engine == "generate"):
        yield (
            "each sampled token finds the norm of every adapted weight again, which takes many times as long: "
            'leave rollout.engine and rollout.weights at "auto"'
        )
