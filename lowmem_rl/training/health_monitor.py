"""The audit at the side of a run: asked after each step, it tells what is new and does what `health.action` says."""

from collections.abc import Callable, Iterable

from lowmem_rl.checkpointing.rollback import stopped
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import TrainingError
from lowmem_rl.health import nan
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import RollbackRecord, read_evaluations, read_history, sample_in
from lowmem_rl.health.incremental_audit import IncrementalAudit
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.telemetry.events import FindingReported, Listener, Note
from lowmem_rl.telemetry.metrics import diverged

MENDED = "learning_rate_too_high"
"""What going back mends, and so does not wait until it is critical."""
GoBack = Callable[[tuple[HealthFinding, ...], int], RollbackRecord]


class HealthMonitor:
    """Begins with what the run's directory holds: a run that is taken up again goes on being watched."""

    def __init__(self, run_dir: RunDir, config: RunConfig, listen: Listener) -> None:
        self.run_dir, self.config, self.listen = run_dir, config, listen
        record = read_history(run_dir)
        self.watcher = IncrementalAudit(record)
        self.evaluations = len(record.evaluations)
        self.works = True
        self.row: Row = {}
        self.news: tuple[HealthFinding, ...] = ()

    def on_kept(self, rows: Iterable[Row]) -> None:
        """Takes in completions as samples.jsonl keeps them."""
        self._unless_it_fails(lambda: self.watcher.on_samples(map(sample_in, rows)))

    def look(self, row: Row) -> tuple[HealthFinding, ...]:
        """Takes in the row of a step; tells what was not told before, and returns it."""
        self.row, self.news = row, ()
        self._unless_it_fails(self._look)
        return self.news

    def act(self, go_back: GoBack) -> None:
        """Lets the run go back where something critical ails it, if `health.action` says so.

        Raises `TrainingError` where the weights are spoiled and stay so: loss or gradient is no number.
        """
        is_ill = self._critical or any(finding.name == MENDED for finding in self._ailing)
        if self.config.health.action == "roll_back" and is_ill:
            undone = go_back(self._ailing, self.watcher.record.step)
            self.watcher.on_rollback(undone)
            self.listen(Note(f"back to the weights of step {undone.to}, and on at a third of the learning rate"))
        elif diverged(self.row):
            raise TrainingError(
                f"Step {self.row['step']}: the loss or the gradient is no finite number. The run stopped.",
                hint=f"{self._way_out} The rows are in {self.run_dir.metrics}",
            )

    def end_if_asked(self) -> None:
        """Raises `TrainingError` where something critical ails the run and `health.action` says that it is to stop.

        The weights are no spoiled ones, `act` has seen to that: the run can be saved, and gone on with.
        """
        if self._critical and self.config.health.action == "stop":
            what_now = 'The run ends, saved: health.action is "stop"; --resume --set health.action=warn goes on.'
            raise stopped(self._critical[0], self.watcher.record.step, what_now)

    @property
    def _way_out(self) -> str:
        found = (finding.cure for finding in self._ailing if finding.name == nan.NAME)
        return next(found, f"Lower optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}).")

    @property
    def _ailing(self) -> tuple[HealthFinding, ...]:
        return self.watcher.ailing if self.works else ()

    @property
    def _critical(self) -> list[HealthFinding]:
        return [finding for finding in self._ailing if finding.severity == "critical"]

    def _look(self) -> None:
        found = read_evaluations(self.run_dir)
        self.watcher.on_evaluations(found[self.evaluations :])
        self.evaluations = len(found)
        self.news = self.watcher.on_row(self.row)
        for finding in self.news:
            self.listen(FindingReported(finding))

    def _unless_it_fails(self, look: Callable[[], None]) -> None:
        """An audit that fails must not cost the run."""
        if not self.works:
            return
        try:
            look()
        except Exception as error:  # noqa: BLE001
            self.works = False
            self.listen(Note(f"the run is no longer watched: {type(error).__name__}: {error}"))
