"""A study from top to bottom: tune, freeze the choices, run every arm and seed, write results."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from lowmem_rl.checkpointing.resume import is_finished
from lowmem_rl.errors import RunDirError
from lowmem_rl.experiment.launch import Launcher
from lowmem_rl.experiment.outcomes import Outcome, Status, outcome_of, spent, within
from lowmem_rl.experiment.run_trials import Report, TrialRunner
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial, final_trials, tuning_trials
from lowmem_rl.experiment.tuning import choose_settings
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.storage.disk import write_file
from lowmem_rl.storage.lock import locked
from lowmem_rl.storage.run_dir import Row, RunDir, drop_torn_row, write_json
from lowmem_rl.storage.run_reader import RunReader, number, part


def run_study(study: Study, directory: StudyDir, launcher: Launcher, report: Report, *, force: bool = False) -> None:
    """Runs what is missing of a study whose runs are checked; safe to call again however the last call ended.

    Raises `RunDirError` for a directory that another process uses, or that is damaged.
    """
    with locked(directory.lock, report):
        drop_torn_row(directory.trials)  # of a driver that was killed while it wrote
        choices = directory.choices(study)
        if study.tuning and not choices:
            TrialRunner(study, directory, launcher, report, force=force).run(tuning_trials(study))
            choices = choose_settings(study, directory.path)
        directory.write(study, choices)
        runner = TrialRunner(study, directory, launcher, report, choices, force)
        try:
            runner.run(final_trials(study))
        finally:
            write_results(study, directory)


def read_outcomes(study: Study, directory: StudyDir) -> list[Outcome]:
    """Returns one outcome for each run that is planned, by seed. Raises `RunDirError` for a damaged run."""
    attempts, found = directory.attempts(), []
    trials = sorted(final_trials(study), key=_place_in(study))
    records = {trial: _record(directory.path / trial.place) for trial in trials}
    statuses = {trial: status_of(directory, trial, attempts.get(trial.name, [])) for trial in trials}
    done = {trial: record for trial, record in records.items() if record and statuses[trial] == "done"}
    budgets = {task: _budget(study, task, done) for task in study.tasks}
    for trial, record in records.items():
        budget = budgets[trial.task]
        counted = record if record is None or budget is None else within(record, study.match, budget)
        found.append(outcome_of(trial, statuses[trial], counted, attempts.get(trial.name, []), study.metric))
    return found


def _budget(study: Study, task: str, done: Mapping[Trial, RunRecord]) -> float | None:
    """Returns what every run of a task gets: as much as the cheapest arm's median run has used.

    None if nothing is cut: steps are matched by the plan, and before a run is done there is nothing to match. A run
    that failed, or that is done with far less than others of its arm (its completions may have collapsed to nothing),
    does not take from the others what they learned after it.
    """
    if study.match == "steps":
        return None
    used: dict[str, list[float]] = {}
    for trial, record in done.items():
        if trial.task == task and record.metrics:
            used.setdefault(trial.arm, []).append(spent(record, study.match)[-1])
    return min(map(median, used.values()), default=None)


def _place_in(study: Study) -> Callable[[Trial], tuple[int, int]]:
    arms = [arm.name for arm in study.arms]
    return lambda trial: (study.seeds.index(trial.seed), arms.index(trial.arm))


def _record(path: Path) -> RunRecord | None:
    return read_record(path) if RunDir(path).config.exists() else None


def status_of(directory: StudyDir, trial: Trial, attempts: Sequence[Row]) -> Status:
    """Returns how far a trial is, whether or not something runs it now."""
    run_dir = RunDir(directory.path / trial.place)
    if run_dir.config.exists():
        steps = number(part(RunReader(run_dir).config, "grpo"), "steps")
        if is_finished(run_dir, int(steps or 0)):
            return "done"
    if directory.is_in_use(trial):
        return "running"
    return "failed" if attempts and attempts[-1].get("failed") is True else "to come"


def write_results(study: Study, directory: StudyDir) -> None:
    """Writes results.json and results.csv, one row a run. Raises `RunDirError` if they cannot be written."""
    rows = [outcome.to_json() for outcome in read_outcomes(study, directory)]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows({**row, "findings": " ".join(row["findings"])} for row in rows)
    try:
        write_json(directory.results, {"study": study.name, "metric": study.metric, "rows": rows})
        write_file(directory.table, text.getvalue().encode("utf-8", "replace"))
    except OSError as error:
        what = f"Results cannot be written into {directory.path}: {error.strerror}."
        raise RunDirError(what, hint="Make it writable, or copy the directory and report the copy.") from error
