"""The page of a study: what may be said, the arms with their costs, curves over seeds, every run, how to repeat it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from statistics import median

from lowmem_rl.experiment.environment_changes import mixed_environment
from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.page_charts import charts_of
from lowmem_rl.experiment.page_layers import strips_of
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.tuning import at_an_end
from lowmem_rl.experiment.verdicts import ENOUGH_SEEDS, ArmVerdict, Verdicts, smallest_found
from lowmem_rl.reports.escape import one_line, p_text, shown
from lowmem_rl.reports.html import fill, write_page
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.stats import Interval
from lowmem_rl.units import GIB

_LONGEST_STUDY = 50_000
"""Characters of a study's file that its page shows."""
_COSTS = ("numbers that learn", "peak", "s a step", "minutes a run", "minutes in all", "price")
_RUNS = ("task", "arm", "seed", "status", "{metric}", "steps", "attempts", "exit code", "machine", "findings")
_INTERVAL = re.compile(r"\[[^]]*\]")
"""Stays on one line of a narrow column."""
_FAILED = "Each counts with its last evaluation, else as the base model."
_MOST = 20
"""Findings of an arm that are listed."""


@dataclass(frozen=True, slots=True)
class StudyPage:
    """What the page is made of; `price` is that of an hour of the card, in any currency."""

    study: Study
    outcomes: Sequence[Outcome]
    verdicts: Verdicts
    price: float | None = None


def write_study_page(page: StudyPage, directory: StudyDir, out: Path | None = None) -> Path:
    """Writes the page and returns where it is. Raises `RunDirError`."""
    return write_page(render_study(page, directory), out or directory.report)


def render_study(page: StudyPage, directory: StudyDir) -> str:
    """Returns the page. Raises `RunDirError` for a damaged run."""
    study = page.study
    place = one_line(quote(str(directory.path)), 200)
    return fill(
        "study",
        followed=False,
        title=one_line(study.name),
        headline=headline(study, page.verdicts),
        remarks=list(remarks(study, page.verdicts, directory)),
        tables=[
            *(_arms(page, task, directory) for task in study.tasks),
            *([_over_tasks(page)] if page.verdicts.over_tasks else []),
        ],
        health=_findings(page),
        failed=_runs(page, _FAILED, [one for one in page.outcomes if one.status == "failed"]),
        runs=_runs(page, "", page.outcomes),
        charts=[asdict(chart) for chart in charts_of(study, page.outcomes, page.verdicts, directory)],
        layers=strips_of(study, directory),
        command=f"lowmem-rl experiment run study.toml --out NEW\nlowmem-rl experiment report {place}",
        study=shown(study.text, _LONGEST_STUDY),
    )


def headline(study: Study, verdicts: Verdicts) -> str:
    """Returns in a line which arms are better, worse or no worse than the baseline, by task if there are several."""
    parts = []
    for task in study.tasks:
        found = verdicts.of(task)
        words = [(word, [one.arm for one in found if one.word == word]) for word in ("better", "worse", "no worse")]
        known = any(one.p_value is not None for one in found)
        said = [f"{word} than {study.baseline}: {', '.join(arms)}" for word, arms in words if arms]
        none = (
            f"No arm is distinguishable from {study.baseline}"
            if known
            else "Too few seeds have a result to compare arms"
        )
        text = "; ".join(said) or none
        parts.append(f"{task}: {text}" if len(study.tasks) > 1 else text[:1].upper() + text[1:])
    is_early = verdicts.is_interim and any(one.p_value is not None for one in verdicts.arms)
    return one_line(("Interim. " if is_early else "") + ". ".join(parts), 300)


def head_of(study: Study, verdicts: Verdicts) -> Cells:
    """Returns the names of the cells of `cells_of`."""
    p_value = "p (Holm), interim" if verdicts.is_interim else "p (Holm)"
    return ("arm", study.metric, "IQM", f"against {study.baseline}", p_value, "exact p", "verdict")


def remarks(study: Study, verdicts: Verdicts, directory: StudyDir) -> Iterator[str]:
    """Yields what a reader must know before the numbers. Raises `RunDirError` for a damaged run."""
    if verdicts.is_interim:
        yield "Interim: not every planned run has ended. Verdicts change until then."
    seeds = len(study.seeds)
    if seeds < ENOUGH_SEEDS:
        yield (
            f"{seeds} seed{'s' if seeds > 1 else ''}: an exact test over seeds cannot give less than "
            f"p = {min(1.0, 2 / 2**seeds):.2g}. Read differences as hints."
        )
    if verdicts.spread is not None:
        yield power_seen(study, verdicts.spread)
    if mixed := mixed_environment(study, directory):
        yield f"Runs differ in more than their arms: {mixed}. Differences between arms may come from that."
    yield from _about_tuning(study, directory)
    comparisons = study.num_comparisons
    yield (
        f"{study.metric} decides. Arms are paired by seed; p-values are those of a t test over seeds, adjusted for "
        f"{comparisons} comparison{'s' if comparisons > 1 else ''} (Holm). No worse: not by {_margin(study)} or more, "
        "at 95 %, one-sided. All else on this page is exploratory."
    )


def _margin(study: Study) -> str:
    return f"{study.margin:.3g}" if study.metric == "reward" else f"{100 * study.margin:.3g} points"


def _about_tuning(study: Study, directory: StudyDir) -> Iterator[str]:
    if not study.tuning:
        yield "Arms were not tuned: one learning rate favours the arms that it suits."
        return
    found = at_an_end(study, directory.choices(study))
    if ends := [name.partition("/")[2] if len(study.tasks) == 1 else name for name in found]:
        names = one_line(", ".join(ends), 200)
        yield f"Tuned to an end of the values that were tried, so that others may be better: {names}."


def power_seen(study: Study, spread: float) -> str:
    """Returns which difference such a study finds, by the spread between its seeds."""
    found, seeds = smallest_found(study, spread), len(study.seeds)
    if study.metric != "reward" and found is not None and found > 1:
        return f"{seeds} seeds with the spread seen so far find no difference, however large."
    least = "no difference" if found is None else f"a difference of {found:.2g}"
    return f"{seeds} seeds with the spread seen here find {least} in four of five such studies."


def _with_interval(value: float | None, interval: Interval | None) -> str:
    text = "-" if value is None else f"{value:.3f}"
    return text + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")


def cells_of(verdict: ArmVerdict, study: Study) -> Cells:
    """Returns arm, metric, interquartile mean, difference, both p-values and the verdict."""
    difference, middle = verdict.difference, verdict.interquartile
    against = f"{difference.gain:+.3f}" if difference else "-"
    if difference and difference.interval:
        against += f" [{difference.interval.low:+.3f}, {difference.interval.high:+.3f}]"
    return (
        verdict.arm,
        _with_interval(verdict.value, verdict.interval),
        _with_interval(middle.value, middle.interval) if middle else "-",
        against,
        "-" if verdict.p_value is None else p_text(verdict.p_value).removeprefix("p ").removeprefix("= "),
        f"{difference.sign_flip_p:.2g}" if difference else "-",
        f"no worse ({_margin(study)})" if verdict.word == "no worse" else verdict.word,
    )


def costs_of(outcomes: Sequence[Outcome]) -> Cells:
    """Returns medians over runs: numbers that learn, peak, seconds of a step, minutes of those that have ended."""
    numbers, peak, step_s = (_median(outcomes, key) for key in ("trained_numbers", "peak_bytes", "step_s"))
    minutes = _median([one for one in outcomes if one.status != "running"], "minutes")
    return (
        "-" if numbers is None else f"{numbers:,.0f}",
        "-" if peak is None else f"{peak / GIB:.2f} GiB",
        "-" if step_s is None else f"{step_s:.2f}",
        "-" if minutes is None else f"{minutes:.1f}",
    )


def _median(outcomes: Sequence[Outcome], key: str) -> float | None:
    values = [value for one in outcomes if (value := getattr(one, key)) is not None]
    return median(values) if values else None


def rows_over_tasks(verdicts: Verdicts) -> tuple[Cells, ...]:
    """Returns each arm with its interquartile mean over all tasks; none for a study of one."""
    return tuple((arm, _with_interval(mean.value, mean.interval)) for arm, mean in verdicts.over_tasks.items())


def _over_tasks(page: StudyPage) -> PageTable:
    note = "The interquartile mean over all tasks and seeds, with a 95 % interval over other seeds of these tasks."
    return PageTable("All tasks", note, ("arm", "IQM"), rows_over_tasks(page.verdicts))


def _arms(page: StudyPage, task: str, directory: StudyDir) -> PageTable:
    study = page.study
    head = head_of(study, page.verdicts)
    costs = _COSTS if page.price is not None else _COSTS[:-1]
    choices = directory.choices(study) if study.tuning else {}
    rows = []
    for verdict in page.verdicts.of(task):
        runs = [one for one in page.outcomes if (one.task, one.arm) == (task, verdict.arm)]
        minutes = directory.minutes(task, verdict.arm)
        price = () if page.price is None else (f"{page.price * minutes / 60:.2f}",)
        tuned = (_tuned(study, task, verdict.arm, choices),) if study.tuning else ()
        cells = (
            _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), cell) for cell in cells_of(verdict, study)
        )
        rows.append((*cells, *tuned, *costs_of(runs), f"{minutes:.0f}", *price))
    items = "" if study.metric == "reward" else "; of the metric, over items, too"
    note = (
        f"95 % intervals are over seeds{items}. IQM: the mean of the "
        "middle half of the seeds, which one lucky run moves little. Minutes in all are those of every attempt, with "
        "loading, evaluation and tuning."
    )
    return PageTable(
        task if len(study.tasks) > 1 else "",
        note,
        (*head, *(["tuned to"] if study.tuning else []), *costs),
        tuple(rows),
    )


def _tuned(study: Study, task: str, arm: str, choices: Mapping[str, int]) -> str:
    """Returns what tuning chose for an arm, with the last part of each key: `learning_rate = 0.003`."""
    number = choices.get(f"{task}/{arm}")
    chosen = {} if number is None else study.arm(arm).choices[number]
    return one_line(", ".join(f"{key.rpartition('.')[2]} = {value}" for key, value in chosen.items()) or "-", 60)


def _findings(page: StudyPage) -> PageTable:
    """Returns a row for each task, arm and finding, with how many runs have it."""
    study, rows = page.study, list[Cells]()
    for task, arm in [(task, arm.name) for task in study.tasks for arm in study.arms]:
        runs = [one for one in page.outcomes if (one.task, one.arm) == (task, arm)]
        counts = Counter(name for one in runs for name in set(one.findings))
        begun = sum(one.steps > 0 for one in runs)
        rows += [(task, arm, one_line(name, 60), f"{count} of {begun}") for name, count in counts.most_common(_MOST)]
    note = "What the audit of each run found: likely causes, not proof; lowmem-rl doctor RUN says more."
    return PageTable("", note, ("task", "arm", "finding", "runs"), tuple(rows))


def _runs(page: StudyPage, note: str, outcomes: Sequence[Outcome]) -> PageTable:
    head = tuple(cell.format(metric=page.study.metric) for cell in _RUNS)
    return PageTable("", note, head, tuple(_run(one, page.study) for one in outcomes))


def _run(one: Outcome, study: Study) -> Cells:
    value = one.value(study.metric)
    facts: Mapping[str, object] = {
        "task": one.task,
        "arm": one.arm,
        "seed": one.seed,
        "status": one.status,
        "value": "-" if value is None else f"{value:.3f}",
        "steps": one.steps,
        "attempts": one.attempts,
        "code": "-" if one.exit_code is None else one.exit_code,
        "machine": one.machine or "-",
        "findings": ", ".join(one.findings) or "-",
    }
    return tuple(one_line(fact, 60) for fact in facts.values())
