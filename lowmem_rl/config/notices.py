"""Settings that a run may have and that do nothing in it: no mistake, but hardly meant."""

from collections.abc import Iterator

from lowmem_rl.config.run_config import RunConfig


def notices(config: RunConfig) -> Iterator[str]:
    """Yields what the schedule of a run does only after the run's last step."""
    steps, optimizer = config.grpo.steps, config.optimizer
    if optimizer.warmup_steps >= steps:
        yield (
            f"the run of {steps} steps ends within its warm-up of {optimizer.warmup_steps}: it never has the learning "
            f"rate {optimizer.learning_rate:g} (optimizer.warmup_steps)"
        )
    late = [str(milestone) for milestone in optimizer.milestones if milestone >= steps]
    if late:
        yield f"the run of {steps} steps ends before the milestones {', '.join(late)} (optimizer.milestones)"
