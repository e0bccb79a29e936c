"""What `lowmem-rl experiment status` and `report` print."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.experiment.outcomes import Outcome, Status
from lowmem_rl.experiment.page import (
    StudyPage,
    cells_of,
    costs_of,
    head_of,
    headline,
    remarks,
    rows_over_tasks,
    write_study_page,
)
from lowmem_rl.experiment.pareto import write_pareto
from lowmem_rl.experiment.run_study import read_outcomes, status_of, write_results
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import tuning_trials
from lowmem_rl.experiment.verdicts import Verdicts, compare_arms, smallest_found
from lowmem_rl.planning.run_cost import check_price
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import list_page

_COSTS = ("trained", "peak", "s a step", "minutes")
_STATES: tuple[Status, ...] = ("done", "running", "failed", "to come")


def status_facts(directory: Path) -> dict[str, Any]:
    """Returns the counts of runs by task and arm, and the minutes that are left one run after the other.

    `tuning` counts the runs that choose the arms' settings; None for a study without, and once the choice is made.
    """
    found = StudyDir(directory)
    study = found.read()
    outcomes = read_outcomes(study, found)
    return {
        "study": study.name,
        "tuning": _tuning(study, found),
        "arms": list(_counts(study, outcomes)),
        "minutes_left": _minutes_left(outcomes),
    }


def status_page(directory: Path) -> str:
    """Returns a row for each task and arm."""
    facts = status_facts(directory)
    rows = [(arm["task"], arm["arm"], *(str(arm[state]) for state in _STATES)) for arm in facts["arms"]]
    left = facts["minutes_left"]
    lines = list(list_page().listing(("task", "arm", *_STATES), rows))
    if tuning := facts["tuning"]:
        lines += ["", "To tune: " + ", ".join(f"{count} {state}" for state, count in tuning.items()) + "."]
    if left is not None:
        lines += ["", f"About {left:.0f} minutes of steps are left, one run after the other."]
    return "\n".join(lines)


def _tuning(study: Study, directory: StudyDir) -> dict[str, int] | None:
    if not study.tuning or directory.choices(study):
        return None
    attempts = directory.attempts()
    found = Counter(status_of(directory, one, attempts.get(one.name, [])) for one in tuning_trials(study))
    return {state: found[state] for state in _STATES}


def _counts(study: Study, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    for task in study.tasks:
        for arm in study.arms:
            found = Counter(one.status for one in outcomes if (one.task, one.arm) == (task, arm.name))
            yield {"task": task, "arm": arm.name, **{state: found[state] for state in _STATES}}


def _minutes_left(outcomes: Sequence[Outcome]) -> float | None:
    done = [one.minutes for one in outcomes if one.status == "done" and one.minutes is not None]
    left = [one for one in outcomes if one.status in ("running", "to come")]
    return median(done) * len(left) if done and left else None


def report_command(
    directory: Path, out: Path | None, price: float | None, *, as_json: bool, show: bool = False
) -> None:
    """Prints the comparison and writes results.json, results.csv, the page and its picture; `show` opens the page."""
    check_price(price, "--price-per-hour")
    found = StudyDir(directory)
    study = found.read()
    outcomes = read_outcomes(study, found)
    verdicts = compare_arms(study, outcomes)
    write_results(study, found)
    page = write_study_page(StudyPage(study, outcomes, verdicts, price), found, out)
    picture = write_pareto(study, outcomes, verdicts, out.with_suffix(".pareto.svg") if out else found.pareto)
    if as_json:
        files = {"page": str(page), "pareto": str(picture) if picture else None}
        console.show_json(_facts(study, verdicts) | files)
    else:
        console.show("\n".join(_lines(study, outcomes, verdicts, found)))
        console.show(f"All of it on one page: {page}")
    if show:
        console.open_page(page)


def _facts(study: Study, verdicts: Verdicts) -> dict[str, Any]:
    spread = verdicts.spread
    return {
        "study": study.name,
        "interim": verdicts.is_interim,
        "arms": [asdict(arm) for arm in verdicts.arms],
        "over_tasks": {arm: asdict(mean) for arm, mean in verdicts.over_tasks.items()},
        "spread": spread,
        "finds": None if spread is None else smallest_found(study, spread),
    }


def _lines(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts, directory: StudyDir) -> Iterator[str]:
    page = list_page()
    yield headline(study, verdicts)
    for remark in remarks(study, verdicts, directory):
        yield from page.fold(remark, "")
    head = (*head_of(study, verdicts), *_COSTS)
    for task in study.tasks:
        rows = [
            (*cells_of(arm, study), *costs_of([one for one in outcomes if (one.task, one.arm) == (task, arm.arm)]))
            for arm in verdicts.of(task)
        ]
        yield ""
        yield from page.listing((task if len(study.tasks) > 1 else "arm", *head[1:]), rows)
    if over_tasks := rows_over_tasks(verdicts):
        yield ""
        yield from page.listing(("all tasks", "IQM"), over_tasks)
    for one in verdicts.failed:
        yield f"failed: {one.task}, {one.arm}, seed {one.seed} after {one.steps} steps, exit code {one.exit_code}"
