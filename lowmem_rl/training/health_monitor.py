"""Audits a run while it trains: reports new findings after each step, and does what `health.action` says."""

from collections.abc import Callable

from lowmem_rl.checkpointing.rollback import Rollback, stop_error
from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import TrainingError
from lowmem_rl.grpo.scored_batch import ScoredBatch, keeps_samples
from lowmem_rl.health import nan
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import read_evaluations, read_history, sample_in
from lowmem_rl.health.incremental_audit import IncrementalAudit
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.telemetry.events import FindingReported, Listener, Note
from lowmem_rl.telemetry.metrics import diverged

_FIXED_BY_ROLLBACK = "learning_rate_too_high"
"""A rollback fixes it, so it does not wait until the finding is critical."""


class HealthMonitor:
    """Starts from what the run directory holds: a resumed run continues to be audited."""

    def __init__(
        self,
        run_dir: RunDir,
        config: RunConfig,
        listen: Listener,
        rollback: Rollback,
        request_stop: Callable[[TrainingError], None],
    ) -> None:
        self.run_dir, self.config, self.listen = run_dir, config, listen
        self.rollback, self.request_stop = rollback, request_stop
        history = read_history(run_dir)
        self.audit = IncrementalAudit(history)
        self.evaluations = len(history.evaluations)
        self.works = True
        self.row: Row = {}

    def on_scored(self, batch: ScoredBatch) -> None:
        """Reads completions as samples.jsonl keeps them."""
        if keeps_samples(batch.step, self.config.logging.samples_every):
            self._unless_it_fails(lambda: self.audit.on_samples(map(sample_in, batch.rows)))

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Audits the step and reports what is new, to the trackers too."""
        self.row = row
        news: list[HealthFinding] = []
        self._unless_it_fails(lambda: news.extend(self._audit_step()))
        trainer.log_to_trackers({f"health/{finding.name}": finding.confidence for finding in news})

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Rolls the run back if a finding demands it, or asks for a stop once the run is saved.

        Raises `TrainingError` if loss or gradient is not a number and the run does not roll back.
        """
        findings = self.audit.findings if self.works else ()
        critical = [finding for finding in findings if finding.level == "critical"]
        action = self.config.health.action
        if action == "roll_back" and (critical or any(finding.name == _FIXED_BY_ROLLBACK for finding in findings)):
            record = self.rollback.apply(findings, trainer)
            self.audit.on_rollback(record)
            note = f"back to the weights of step {record.to}; continues at a third of the learning rate"
            self.listen(Note(note))
        elif diverged(self.row):
            fixes = (finding.fix for finding in findings if finding.name == nan.NAME)
            lower = f"Lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g})."
            raise TrainingError(
                f"Step {self.row['step']}: the loss or the gradient is not a finite number. The run stopped.",
                hint=f"{next(fixes, lower)} The rows are in {self.run_dir.metrics}",
            )
        elif critical and action == "stop":
            what_now = 'The run ends, saved: health.action is "stop"; --resume --set health.action=warn continues.'
            self.request_stop(stop_error(critical[0], self.audit.history.step, what_now))

    def _audit_step(self) -> tuple[HealthFinding, ...]:
        found = read_evaluations(self.run_dir)
        self.audit.on_evaluations(found[self.evaluations :])
        self.evaluations = len(found)
        news = self.audit.on_row(self.row)
        for finding in news:
            self.listen(FindingReported(finding))
        return news

    def _unless_it_fails(self, audit: Callable[[], None]) -> None:
        """A failing audit must not cost the run."""
        if not self.works:
            return
        try:
            audit()
        except Exception as error:  # noqa: BLE001
            self.works = False
            self.listen(Note(f"the run is no longer audited: {type(error).__name__}: {error}"))
