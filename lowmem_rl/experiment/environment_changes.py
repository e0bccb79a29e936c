"""What the runs of a study were made with: versions, commit and card, in which its arms must not differ."""

import re
from collections.abc import Iterator, Mapping

from lowmem_rl.experiment.run_study import status_of
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import final_trials, tuning_trials
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.reports.escape import one_line
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader, part
from lowmem_rl.telemetry.environment import commit, versions

_LONG_COMMIT = re.compile(r"[0-9a-f]{40}")
Environment = Mapping[str, object]
"""Versions by package; "commit" and "card", None without a checkout or a GPU."""


def environment_here() -> Environment:
    """Returns what a run that starts on this machine is made with."""
    machine = this_machine()
    return {**versions(), "commit": commit(), "card": machine.name if machine.has_gpu else None}


def changes_since(study: Study, directory: StudyDir, here: Environment) -> str:
    """Returns in which way the runs that are there differ from one that starts here: `torch 2.13.0 -> 2.14.1`.

    Empty if they do not, or if nothing is left to run. Cards are compared if runs are processes of this machine: on a
    cluster the driving one may have none. Raises `RunDirError` for a damaged run.
    """
    if all(status_of(directory, trial, ()) == "done" for trial in final_trials(study)):
        return ""
    left_out = () if study.run.on == "local" else ("card",)
    now = {name: value for name, value in here.items() if name not in left_out}
    return next(filter(None, (_changes(then, now) for then in _environments(study, directory))), "")


def card_of_runs(study: Study, directory: StudyDir) -> str | None:
    """Returns the card that the first of the runs was made on, "cpu" for none; None before there is a run."""
    first = next(_environments(study, directory), None)
    return None if first is None else one_line(first.get("card") or "cpu", 100)


def mixed_environment(study: Study, directory: StudyDir) -> str:
    """Returns in which way runs of a study differ from the first of them, empty if they do not."""
    found = list(_environments(study, directory))
    return next(filter(None, (_changes(found[0], other) for other in found[1:])), "")


def _environments(study: Study, directory: StudyDir) -> Iterator[Environment]:
    """Yields what each run was made with, if it has recorded it."""
    for trial in (*tuning_trials(study), *final_trials(study)):
        reader = RunReader(RunDir(directory.path / trial.place))
        if recorded := reader.machine:
            yield {**part(recorded, "versions"), "commit": recorded.get("commit"), "card": recorded.get("gpu")}


def _changes(then: Environment, now: Environment) -> str:
    """Returns what differs of that which both know."""
    names = [name for name in now if name in then and then[name] != now[name]]
    return ", ".join(f"{one_line(name, 20)} {_shown(then[name])} -> {_shown(now[name])}" for name in names[:6])


def _shown(value: object) -> str:
    """Returns a value in few characters: a commit, which may end in `-dirty`, by its first twelve."""
    text = _LONG_COMMIT.sub(lambda found: found[0][:12], str(value)[:100])
    return "none" if value is None else one_line(text, 40)
