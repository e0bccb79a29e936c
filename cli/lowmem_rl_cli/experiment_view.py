"""What `lowmem-rl experiment status` and `report` print."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.experiment.environment import mixed_environment
from lowmem_rl.experiment.outcomes import Outcome, Status
from lowmem_rl.experiment.page import StudyPage, cells_of, costs_of, headline, remarks, write_study_page
from lowmem_rl.experiment.run_study import read_outcomes, write_results
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.verdicts import Verdicts, compare_arms
from lowmem_rl.planning.run_cost import check_price
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import list_page

_COSTS = ("trained", "peak", "s a step", "minutes")
_STATES: tuple[Status, ...] = ("done", "running", "failed", "to come")


def status_facts(directory: Path) -> dict[str, Any]:
    """Returns the counts of runs by task and arm, and the minutes that are left one run after the other."""
    study = StudyDir(directory).read()
    outcomes = read_outcomes(study, StudyDir(directory))
    return {"study": study.name, "arms": list(_counts(study, outcomes)), "minutes_left": _minutes_left(outcomes)}


def status_page(directory: Path) -> str:
    """Returns a row for each task and arm."""
    facts = status_facts(directory)
    rows = [(arm["task"], arm["arm"], *(str(arm[state]) for state in _STATES)) for arm in facts["arms"]]
    left = facts["minutes_left"]
    rest = "" if left is None else f"\n\nAbout {left:.0f} minutes of steps are left, one run after the other."
    return "\n".join(list_page().listing(("task", "arm", *_STATES), rows)) + rest


def _counts(study: Study, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    for task in study.tasks:
        for arm in study.arms:
            found = Counter(one.status for one in outcomes if (one.task, one.arm) == (task, arm.name))
            yield {"task": task, "arm": arm.name, **{state: found[state] for state in _STATES}}


def _minutes_left(outcomes: Sequence[Outcome]) -> float | None:
    done = [one.minutes for one in outcomes if one.status == "done" and one.minutes is not None]
    left = [one for one in outcomes if one.status in ("running", "to come")]
    return median(done) * len(left) if done and left else None


def report_command(directory: Path, out: Path | None, price: float | None, *, as_json: bool) -> None:
    """Prints the comparison and writes results.json, results.csv and the page."""
    check_price(price, "--price-per-hour")
    found = StudyDir(directory)
    study = found.read()
    outcomes = read_outcomes(study, found)
    verdicts = compare_arms(study, outcomes)
    write_results(study, found)
    page = write_study_page(StudyPage(study, outcomes, verdicts, price), found, out)
    if as_json:
        arms = [asdict(arm) for arm in verdicts.arms]
        console.show_json({"study": study.name, "interim": verdicts.is_interim, "arms": arms, "page": str(page)})
        return
    console.show("\n".join(_lines(study, outcomes, verdicts, mixed_environment(study, found))))
    console.show(f"All of it on one page: {page}")


def _lines(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts, mixed: str) -> Iterator[str]:
    page = list_page()
    yield headline(study, verdicts)
    for remark in remarks(study, verdicts, mixed):
        yield from page.fold(remark, "")
    head = ("arm", study.metric, f"against {study.baseline}", "p (Holm)", "exact p", "verdict", *_COSTS)
    for task in study.tasks:
        rows = [
            (*cells_of(arm, study), *costs_of([one for one in outcomes if (one.task, one.arm) == (task, arm.arm)]))
            for arm in verdicts.of(task)
        ]
        yield ""
        yield from page.listing((task if len(study.tasks) > 1 else "arm", *head[1:]), rows)
    for one in verdicts.failed:
        yield f"failed: {one.task}, {one.arm}, seed {one.seed} after {one.steps} steps, exit code {one.exit_code}"
