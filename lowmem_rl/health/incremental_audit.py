"""`IncrementalAudit`: the audit during a run, fed with events as they happen.

After each row it runs the same detectors as the audit afterwards: what it reports, `audit` finds again.
"""

from collections.abc import Iterable, Iterator

from lowmem_rl.health.audit import detect_all
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import EvalPoint, RollbackRecord, RunHistory, Sample
from lowmem_rl.storage.run_dir import Row


class IncrementalAudit:
    """The history so far, the findings at its end, and which of them were reported already."""

    def __init__(self, history: RunHistory) -> None:
        self.history = history.lasting()
        self.findings: tuple[HealthFinding, ...] = detect_all(self.history)
        """After the last row, the worst first."""
        self.reported: dict[str, int] = {}
        """By name, the rank at which a finding was reported."""
        self._new_findings()  # a resumed run has reported these

    def on_samples(self, samples: Iterable[Sample]) -> None:
        """Adds completions that were kept."""
        self.history = self.history.plus(samples=tuple(samples))

    def on_evaluations(self, evaluations: Iterable[EvalPoint]) -> None:
        """Adds evaluations."""
        self.history = self.history.plus(evaluations=tuple(evaluations))

    def on_row(self, row: Row) -> tuple[HealthFinding, ...]:
        """Adds the row of a step. Returns the findings that are new, or worse than when they were reported."""
        self.history = self.history.plus(rows=(row,))
        self.findings = detect_all(self.history)
        return self._new_findings()

    def on_rollback(self, undone: RollbackRecord) -> None:
        """Removes what is between the restored checkpoint and now."""
        self.history = self.history.without(undone)
        self.findings = detect_all(self.history)

    def _new_findings(self) -> tuple[HealthFinding, ...]:
        new = tuple(f for f in self.findings if f.name not in self.reported or f.rank < self.reported[f.name])
        self.reported |= {finding.name: finding.rank for finding in new}
        return new


def replay(history: RunHistory) -> Iterator[tuple[int, HealthFinding]]:
    """Yields what an audit during the run reports, with the step after which it does."""
    live, last = IncrementalAudit(RunHistory(history.config, ())), 0
    for row in history.rows:
        step = row["step"]
        live.on_samples(sample for sample in history.samples if sample.step == step)
        live.on_evaluations(evaluation for evaluation in history.evaluations if last <= evaluation.step < step)
        yield from ((step, finding) for finding in live.on_row(row))
        for undone in history.rollbacks:
            if undone.step == step:
                live.on_rollback(undone)
        last = step
