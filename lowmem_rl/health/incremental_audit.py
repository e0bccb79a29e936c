"""`IncrementalAudit`: the audit while a run is under way, told of what happens as it happens.

It is asked after each row, and by the same looks as the audit afterwards: what it says is what `examine` finds again.
"""

from collections.abc import Iterable, Iterator

from lowmem_rl.health.audit import detect_all
from lowmem_rl.health.detector import SEVERITIES, HealthFinding, Severity
from lowmem_rl.health.history import EvalPoint, RollbackRecord, RunHistory, Sample
from lowmem_rl.storage.run_dir import Row


class IncrementalAudit:
    """What counts of a run so far, what ails it now, and what has been told of it already."""

    def __init__(self, record: RunHistory) -> None:
        self.record = record.lasting()
        self.ailing: tuple[HealthFinding, ...] = detect_all(self.record)
        """What ails the run after its last row, the worst first."""
        self.told: dict[str, Severity] = {}
        self._news()  # a run that is taken up again was told of these

    def on_samples(self, samples: Iterable[Sample]) -> None:
        """Takes in completions that were kept."""
        self.record = self.record.plus(samples=tuple(samples))

    def on_evaluations(self, evaluations: Iterable[EvalPoint]) -> None:
        """Takes in evaluations that were made."""
        self.record = self.record.plus(evaluations=tuple(evaluations))

    def on_row(self, row: Row) -> tuple[HealthFinding, ...]:
        """Takes in the row of a step. Returns what ails the run that was not told yet, or was told as less grave."""
        self.record = self.record.plus(rows=(row,))
        self.ailing = detect_all(self.record)
        return self._news()

    def on_rollback(self, undone: RollbackRecord) -> None:
        """Forgets what lies between the checkpoint that the run went back to and now."""
        self.record = self.record.without(undone)
        self.ailing = detect_all(self.record)

    def _news(self) -> tuple[HealthFinding, ...]:
        news = tuple(finding for finding in self.ailing if self._is_news(finding))
        self.told |= {finding.name: finding.level for finding in news}
        return news

    def _is_news(self, finding: HealthFinding) -> bool:
        told = self.told.get(finding.name)
        return told is None or SEVERITIES.index(finding.level) < SEVERITIES.index(told)


def replay(record: RunHistory) -> Iterator[tuple[int, HealthFinding]]:
    """Yields what a watcher tells that lives through the run again, and after which step."""
    watcher, last = IncrementalAudit(RunHistory(record.config, ())), 0
    for row in record.rows:
        step = row["step"]
        watcher.on_samples(sample for sample in record.samples if sample.step == step)
        watcher.on_evaluations(evaluation for evaluation in record.evaluations if last <= evaluation.step < step)
        yield from ((step, finding) for finding in watcher.on_row(row))
        for undone in record.rollbacks:
            if undone.step == step:
                watcher.on_rollback(undone)
        last = step
