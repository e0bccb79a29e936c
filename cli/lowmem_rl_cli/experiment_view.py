"""What `lowmem-rl experiment status` and `report` print."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.experiment.outcomes import Outcome, Status
from lowmem_rl.experiment.run_study import read_outcomes, write_results
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.verdicts import ENOUGH_SEEDS, ArmVerdict, Verdicts, judge
from lowmem_rl.reports.escape import p_text
from lowmem_rl.units import GIB
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import list_page

_STATES: tuple[Status, ...] = ("done", "running", "failed", "to come")


def status_facts(directory: Path) -> dict[str, Any]:
    """Returns the counts of runs by task and arm, and the minutes that are left if none of them runs beside another."""
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
    found = StudyDir(directory)
    study = found.read()
    outcomes = read_outcomes(study, found)
    verdicts = judge(study, outcomes)
    write_results(study, found)
    if as_json:
        console.show_json(
            {"study": study.name, "interim": verdicts.is_interim, "arms": [asdict(a) for a in verdicts.arms]}
        )
        return
    console.show("\n".join(_lines(study, outcomes, verdicts)))


def _lines(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts) -> Iterator[str]:
    page = list_page()
    if len(study.seeds) < ENOUGH_SEEDS:
        least = 2 / 2 ** len(study.seeds)
        yield from page.fold(
            f"{len(study.seeds)} seeds: no exact test over seeds can give less than p = {least:.2g}. "
            f"Read differences as hints; {ENOUGH_SEEDS} seeds are the least that can show one.",
            "",
        )
    if verdicts.is_interim:
        yield "Interim: not every planned run has ended, and p-values change until then."
    head = ("arm", study.metric, f"against {study.baseline}", "p (Holm)", "", "trained", "peak", "s a step", "minutes")
    for task in study.tasks:
        yield from ("", f"Task {task}") if len(study.tasks) > 1 else ("",)
        yield from page.listing(head, [_row(study, arm, outcomes) for arm in verdicts.of(task)])
    for one in verdicts.failed:
        yield f"failed: {one.task}, {one.arm}, seed {one.seed} after {one.steps} steps, exit code {one.exit_code}"


def _row(study: Study, verdict: ArmVerdict, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    runs = [one for one in outcomes if (one.task, one.arm) == (verdict.task, verdict.arm)]
    difference = verdict.difference
    interval = difference.interval if difference else None
    against = "-" if difference is None else f"{difference.gain:+.3f}"
    against += f" [{interval.low:+.3f}, {interval.high:+.3f}]" if interval else ""
    value = "-" if verdict.value is None else f"{verdict.value:.3f}"
    value += f" [{verdict.interval.low:.3f}, {verdict.interval.high:.3f}]" if verdict.interval else ""
    word: str = "baseline" if verdict.arm == study.baseline else verdict.word
    word += f" (margin {100 * study.margin:.0f} points)" if word == "no worse" else ""
    return (
        verdict.arm,
        value,
        against,
        "-" if verdict.p_value is None else p_text(verdict.p_value).removeprefix("p = "),
        word,
        *_costs(runs),
    )


def _costs(runs: Sequence[Outcome]) -> Iterator[str]:
    """Yields medians over runs: trained numbers, peak, seconds of a step, minutes."""
    forms = {"trained_numbers": "{:,.0f}", "peak_bytes": "{:.2f} GiB", "step_s": "{:.2f}", "minutes": "{:.1f}"}
    for key, form in forms.items():
        found = [getattr(one, key) for one in runs if getattr(one, key) is not None]
        yield form.format(median(found) / (GIB if key == "peak_bytes" else 1)) if found else "-"
