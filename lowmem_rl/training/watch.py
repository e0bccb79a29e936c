"""The audit at the side of a run: asked after each step, it tells what is new and does what `health.action` says."""

from collections.abc import Callable, Iterable

from lowmem_rl.config import RunConfig
from lowmem_rl.health.finding import Finding
from lowmem_rl.health.record import RollBack, read_evaluations, read_record, sample_in
from lowmem_rl.health.watcher import Watcher
from lowmem_rl.runs import Row, RunDir
from lowmem_rl.training.events import Found, Listener, Noted
from lowmem_rl.training.rollback import stopped

GoBack = Callable[[tuple[Finding, ...]], RollBack]


class Watch:
    """Begins with what the run's directory holds: a run that is taken up again goes on being watched."""

    def __init__(self, run_dir: RunDir, config: RunConfig, listen: Listener) -> None:
        self.run_dir, self.action, self.listen = run_dir, config.health.action, listen
        record = read_record(run_dir)
        self.watcher = Watcher(record)
        self.evaluations = len(record.evaluations)
        self.works = True

    def on_kept(self, rows: Iterable[Row]) -> None:
        """Takes in completions as samples.jsonl keeps them."""
        self._unless_it_fails(lambda: self.watcher.on_samples(map(sample_in, rows)))

    def look(self, row: Row) -> None:
        """Takes in the row of a step and tells what was not told before."""
        self._unless_it_fails(lambda: self._look(row))

    def act(self, go_back: GoBack) -> bool:
        """Stops the run or lets it go back where something critical ails it and `health.action` says so.

        Returns whether it went back. Raises `TrainingError`.
        """
        critical = [finding for finding in self.watcher.ailing if finding.severity == "critical"]
        if not critical or not self.works or self.action == "warn":
            return False
        if self.action == "stop":
            raise stopped(critical[0], self.watcher.record.step, 'The run ends, as health.action="stop" says.')
        undone = go_back(self.watcher.ailing)
        self.watcher.on_rollback(undone)
        self.listen(Noted(f"back to the weights of step {undone.to}, and on at half the learning rate"))
        return True

    def _look(self, row: Row) -> None:
        found = read_evaluations(self.run_dir)
        self.watcher.on_evaluations(found[self.evaluations :])
        self.evaluations = len(found)
        for finding in self.watcher.on_row(row):
            self.listen(Found(finding))

    def _unless_it_fails(self, look: Callable[[], None]) -> None:
        """An audit that fails must not cost the run."""
        if not self.works:
            return
        try:
            look()
        except Exception as error:  # noqa: BLE001
            self.works = False
            self.listen(Noted(f"the run is no longer watched: {type(error).__name__}: {error}"))
