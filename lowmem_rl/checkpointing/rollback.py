"""Going back: the state of the last healthy checkpoint, and on from there at a third of the learning rate.

So OPT-175B was trained through its divergences (arXiv 2205.01068, section 2.5). Steps and data go on instead of being
taken again, as PaLM skipped the batches of a spike (arXiv 2204.02311, section 5.1): the same data at the same rate,
with the seed fixed, would collapse the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import Checkpoint, newest, remove_after
from lowmem_rl.config.run_config import LoggingConfig, RunConfig
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import RunDirError, TrainingError
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import RollbackRecord
from lowmem_rl.storage.run_dir import RunDir, append_row, read_rows

MOST_ROLLBACKS = 3
"""A run that collapses at a 27th of its learning rate suffers from something else."""
SLOWER = 1 / 3
ROUNDS_BACK = 30
"""A collapse is named within 20 rounds and rests on ten more: as old must a checkpoint be to be surely healthy."""
OPTIMIZER, SCALER = "optimizer.pt", "scaler.pt"
"""transformers' names."""


def with_old_checkpoints(config: RunConfig) -> LoggingConfig:
    """Returns how checkpoints are kept: where the run may go back, far enough."""
    logging = config.logging
    if config.health.action != "roll_back":
        return logging
    steps_of_a_round = config.grpo.steps_per_rollout * config.grpo.passes_per_rollout
    enough = 1 + ceil(ROUNDS_BACK * steps_of_a_round / logging.checkpoint_every)
    return logging.model_copy(update={"keep_checkpoints": max(logging.keep_checkpoints, enough)})


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a run goes back with."""

    run_dir: RunDir
    policy: Policy
    trainer: Any
    tell: Callable[[str], None]

    def go(self, ailing: Sequence[HealthFinding], step: int) -> RollbackRecord:
        """Puts back the last checkpoint from before anything ailed, slows the run down, and writes that down.

        Later checkpoints are removed: a run that is taken up again must not begin at a collapsed one. Raises
        `TrainingError`, healthy weights in place, where going on would lead nowhere: no checkpoint is old enough, and
        the base model is all there is, or the run went back often enough.
        """
        checkpoint = self._checkpoint_before(min(found.steps[0] for found in ailing if found.severity != "note"))
        restore(self.trainer, self.policy, checkpoint)
        to = checkpoint.step if checkpoint else 0
        remove_after(self.run_dir, to)
        if checkpoint is None:
            raise stopped(ailing[0], step, "No checkpoint is older than that: the weights are the base model's again.")
        before = len(list(read_rows(self.run_dir.rollbacks)))
        if before == MOST_ROLLBACKS:
            raise stopped(ailing[0], step, f"After {before} roll-backs the run ends, with the weights of step {to}.")
        rate = slow_down(self.trainer)
        append_row(self.run_dir.rollbacks, {"step": step, "to": to, "finding": ailing[0].name, "learning_rate": rate})
        return RollbackRecord(step, to)

    def _checkpoint_before(self, step: int) -> Checkpoint | None:
        try:
            return newest(self.run_dir, self.tell, step)
        except RunDirError:  # all of them are damaged
            return None


def stopped(finding: HealthFinding, step: int, what_now: str) -> TrainingError:
    """Returns what a run ends with that a finding has stopped."""
    first, last = finding.steps
    return TrainingError(
        f"Step {step}: {finding.name}, steps {first} to {last}. {finding.what} {what_now}", hint=finding.cure
    )


def restore(trainer: Any, policy: Policy, checkpoint: Checkpoint | None) -> None:
    """Puts weights and optimizer back, without a checkpoint the base model's; a rollout under way is dropped.

    The gradient scaler goes back with them: where gradients overflowed, its scale has fallen to what healthy ones
    would vanish at.
    """
    import torch

    optimizer = trainer.optimizer
    if checkpoint is None:
        _become_base(policy)
        optimizer.state.clear()
    else:
        load_adapter(policy.model, checkpoint.path)
        found = torch.load(checkpoint.path / OPTIMIZER, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(found)
        if trainer.accelerator.scaler is not None:
            trainer.accelerator.scaler.load_state_dict(torch.load(checkpoint.path / SCALER, weights_only=True))
    trainer._buffered_inputs = None  # sampled by the collapsed policy


def slow_down(trainer: Any) -> float:
    """Multiplies the learning rate, now and for the rest of its schedule; returns the new peak."""
    scheduler = trainer.lr_scheduler
    scheduler.base_lrs = [SLOWER * rate for rate in scheduler.base_lrs]
    scheduler._last_lr = [SLOWER * rate for rate in scheduler.get_last_lr()]
    for group, rate in zip(trainer.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    return float(scheduler.base_lrs[0])


def _become_base(policy: Policy) -> None:
    """A LoRA whose second factor is zero changes nothing."""
    import torch

    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if weight.requires_grad and "lora_B" in name:
                weight.zero_()
