"""Rolling back: restores the last healthy checkpoint and continues at a third of the learning rate.

So OPT-175B was trained through its divergences (arXiv 2205.01068, section 2.5). Steps and data continue instead of
being repeated, as PaLM skipped the batches of a spike (arXiv 2204.02311, section 5.1): the same data at the same rate,
with a fixed seed, would collapse the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from lowmem_rl.checkpointing.checkpoint_storage import newest, remove_after
from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.config.run_config import LoggingConfig, RunConfig
from lowmem_rl.errors import RunDirError, TrainingError
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import RollbackRecord
from lowmem_rl.storage.run_dir import RunDir, append_row, read_rows

_MOST_ROLLBACKS = 3
"""A run that collapses at a 27th of its learning rate has another problem."""
_SLOWER = 1 / 3
_ROUNDS_BACK = 30
"""A collapse is named within 20 rounds and rests on ten more: a checkpoint must be as old to be surely healthy."""


def with_old_checkpoints(config: RunConfig) -> LoggingConfig:
    """Returns how checkpoints are kept: far enough back if the run may roll back."""
    logging = config.logging
    if config.health.action != "roll_back":
        return logging
    steps_of_a_round = config.grpo.steps_per_rollout * config.grpo.passes_per_rollout
    enough = 1 + ceil(_ROUNDS_BACK * steps_of_a_round / logging.checkpoint_every)
    return logging.model_copy(update={"keep_checkpoints": max(logging.keep_checkpoints, enough)})


@dataclass(frozen=True, slots=True)
class Rollback:
    """Rolls a run back."""

    run_dir: RunDir
    report: Callable[[str], None]

    def apply(self, findings: Sequence[HealthFinding], trainer: TrainerLike) -> RollbackRecord:
        """Restores the newest checkpoint older than every finding, lowers the learning rate, and logs it.

        Later checkpoints are removed: a resumed run must not start from a collapsed one. Raises `TrainingError`, with
        healthy weights in place, if continuing leads nowhere: no checkpoint is old enough, so that the base model is
        all there is, or the run has rolled back often enough.
        """
        first = min(finding.steps[0] for finding in findings if finding.level != "note")
        try:
            checkpoint = newest(self.run_dir, self.report, first)
        except RunDirError:  # all of them are damaged
            checkpoint = None
        trainer.restore_weights(checkpoint.path if checkpoint else None)
        to, step = checkpoint.step if checkpoint else 0, trainer.step
        remove_after(self.run_dir, to)
        if checkpoint is None:
            what_now = "No checkpoint is older than that: the weights are the base model's again."
            raise stop_error(findings[0], step, what_now)
        before = len(list(read_rows(self.run_dir.rollbacks)))
        if before == _MOST_ROLLBACKS:
            what_now = f"After {before} roll-backs the run ends, with the weights of step {to}."
            raise stop_error(findings[0], step, what_now)
        rate = trainer.scale_learning_rate(_SLOWER)
        row = {"step": step, "to": to, "finding": findings[0].name, "learning_rate": rate}
        append_row(self.run_dir.rollbacks, row)
        return RollbackRecord(step, to)


def stop_error(finding: HealthFinding, step: int, what_now: str) -> TrainingError:
    """Returns the error with which a run ends that a finding has stopped."""
    first, last = finding.steps
    return TrainingError(
        f"Step {step}: {finding.name}, steps {first} to {last}. {finding.what} {what_now}", hint=finding.fix
    )
