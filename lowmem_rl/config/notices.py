"""Settings that a run may have and that do nothing in it, or too much: no mistake, but hardly meant."""

from collections.abc import Iterator

from lowmem_rl.config.run_config import RunConfig

_LEAST_WAY = 0.1
"""How far, as the norm over all weights, a run must be able to move them: ten steps of AdamW at 1e-5 move an adapter of
a million numbers as far."""


def notices(config: RunConfig) -> Iterator[str]:
    """Yields what a run's schedules do only after its last step, and what to know of what learns in it."""
    steps, optimizer, trainable = config.grpo.steps, config.optimizer, config.trainable
    yield from _whole_notices(config) if trainable.method == "full" else _adapter_notices(config)
    if trainable.schedule == "slimfit":
        yield from _slimfit_notices(config)
    if optimizer.name == "sgd" and (farthest := steps * optimizer.learning_rate * optimizer.max_grad_norm) < _LEAST_WAY:
        yield (
            f"SGD moves all weights together by at most {farthest:.2g} in {steps} steps, the learning rate times "
            f"max_grad_norm in each, where AdamW moves every weight by its rate: raise optimizer.learning_rate"
        )
    if optimizer.warmup_steps >= steps:
        yield (
            f"the run of {steps} steps ends within its warm-up of {optimizer.warmup_steps}: it never has the learning "
            f"rate {optimizer.learning_rate:g} (optimizer.warmup_steps)"
        )
    late = [str(milestone) for milestone in optimizer.milestones if milestone >= steps]
    if late:
        yield f"the run of {steps} steps ends before the milestones {', '.join(late)} (optimizer.milestones)"
    if trainable.schedule not in ("fixed", "freezeout") and trainable.every >= steps:
        yield (
            f"the run of {steps} steps ends within the first {trainable.every}: the layers that learn never change "
            "(trainable.every)"
        )


def _whole_notices(config: RunConfig) -> Iterator[str]:
    yield (
        f"whole weights learn at optimizer.learning_rate = {config.optimizer.learning_rate:g}; the rates of presets "
        "are LoRA's, and the best rate of whole weights is about a tenth of LoRA's (LoRA Without Regret, 2025)"
    )


_LEAST_MOVE = 0.1
"""How far a run must be able to move TinyLoRA's numbers: they are shares of a weight's first singular values."""


def _adapter_notices(config: RunConfig) -> Iterator[str]:
    adapter, rate, steps = config.adapter, config.optimizer.learning_rate, config.grpo.steps
    if adapter.peft_type == "tinylora" and rate * steps < _LEAST_MOVE:
        yield (
            f"TinyLoRA's numbers start at 0, and {steps} steps of Adam at the learning rate {rate:g} move each by "
            f"about {rate * steps:.2g} at most: raise optimizer.learning_rate"
        )
    if adapter.use_dora and (config.rollout.weights == "quantized" or config.rollout.engine == "generate"):
        yield (
            "each sampled token finds the norm of every adapted weight again, which takes many times as long: our "
            'engine with rollout.weights="merged" finds them once a rollout, if the copy fits'
        )


def _slimfit_notices(config: RunConfig) -> Iterator[str]:
    trainable, periods = config.trainable, config.grpo.steps // config.trainable.every
    learning = 1 - trainable.freeze_rate
    if periods * learning < 1 - 1e-9:
        yield (
            f"{periods} periods let {periods * learning:.0%} of the matrices learn, {learning:.0%} each: the others "
            "never do (trainable.every, trainable.freeze_rate)"
        )
    if trainable.every == 1 and trainable.state == "reset":
        yield (
            "each step of a matrix may be its optimizer's first, which follows the gradient's sign alone: SlimFit "
            'keeps the states (trainable.state="keep")'
        )
