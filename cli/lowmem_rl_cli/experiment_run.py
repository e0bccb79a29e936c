"""`lowmem-rl experiment run`: checks every arm, prints the plan, and runs it."""

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join
from time import strftime
from typing import Any

from lowmem_rl.config.toml_text import toml_value
from lowmem_rl.entrypoints.preflight import check_card
from lowmem_rl.errors import ConfigError, Interrupted, SetupError, TrainingError
from lowmem_rl.experiment.arms import ArmPlan, check_study, resolve_trial
from lowmem_rl.experiment.launch import Launcher, LocalLauncher
from lowmem_rl.experiment.on_ray import RayLauncher
from lowmem_rl.experiment.on_slurm import SlurmLauncher
from lowmem_rl.experiment.run_study import read_outcomes, run_study
from lowmem_rl.experiment.seed_statistics import ASSUMED_SPREAD, expected_spread, smallest_gain
from lowmem_rl.experiment.study import Study, read_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import final_trials
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.planning.gate import gate
from lowmem_rl.stack import check_installed
from lowmem_rl.stats import SIGNIFICANT
from lowmem_rl.units import GIB
from lowmem_rl_cli import console

_HARDEST = 0.5
"""The pass rate at which items tell least, for a plan that knows none."""


def run_command(
    file: Path | None,
    out: Path | None,
    where: tuple[str | None, int | None],
    *,
    resume: bool,
    dry_run: bool,
    force: bool,
    allow_code: bool,
    as_json: bool,
) -> None:
    """Checks a study, then prints or runs it."""
    study = _placed(_read(file, out, resume=resume), *where)
    plans = check_study(study, allow_code=allow_code)
    if dry_run:
        console.show_json(plan_facts(study, plans)) if as_json else console.show(plan_page(study, plans))
    for plan in plans:
        for refusal in () if force else gate(plan.plan, force=True):
            raise type(refusal)(f"Arm {plan.arm}: {refusal}", hint=refusal.hint)
    if dry_run:
        return
    check_installed()
    if study.run.on == "local":
        check_card(resolve_trial(study, next(final_trials(study)), {}), this_machine())
    directory, launcher = _opened(study, out, resume=resume, force=force)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler: runs save, as after Ctrl-C
    console.say(f"{len(list(final_trials(study)))} runs, at most {launcher.jobs} at once, in {directory.path}")
    try:
        run_study(study, directory, launcher, console.say, force=force)
    except KeyboardInterrupt as error:
        hint = f"Continue with: {_resume_command(directory.path, allow_code=allow_code)}"
        raise Interrupted("The study was stopped; its runs have saved.", hint=hint) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    from lowmem_rl_cli.experiment_view import report_command

    report_command(directory.path, None, None, as_json=as_json)
    _check_all_done(study, directory, allow_code=allow_code)


def _check_all_done(study: Study, directory: StudyDir, *, allow_code: bool) -> None:
    """Raises `TrainingError` if a run failed: the study is complete without it, and a script must know."""
    outcomes = read_outcomes(study, directory)
    if failed := [one for one in outcomes if one.status == "failed"]:
        what = f"{len(failed)} of {len(outcomes)} runs failed; each counts as far as it came."
        again = _resume_command(directory.path, allow_code=allow_code)
        raise TrainingError(what, hint=f"See {directory.path / 'logs'}. Try them again: {again}")


def _opened(study: Study, out: Path | None, *, resume: bool, force: bool) -> tuple[StudyDir, Launcher]:
    """Returns the study's directory, a new one unless it resumes, and what runs it; without that it leaves nothing."""
    directory = StudyDir(out) if resume and out else StudyDir.create(out or default_out(study), study)
    try:
        return directory, launcher_of(study, directory.path.resolve(), force=force)
    except SetupError:
        if not resume:
            directory.undo()
        raise


def _read(file: Path | None, out: Path | None, *, resume: bool) -> Study:
    if resume:
        if out is None:
            raise ConfigError("--resume needs the directory of the study.", hint="Add --out DIR.")
        directory = StudyDir(out)
        study = directory.changed(read_study(file)) if file else directory.read()
        directory.check_place()
        return study
    if file is None:
        raise ConfigError("No study is named.", hint="lowmem-rl experiment run STUDY.toml; studies/ has examples.")
    return read_study(file)


def _placed(study: Study, on: str | None, jobs: int | None) -> Study:
    changes: dict[str, Any] = ({"on": on} if on else {}) | ({"jobs": jobs} if jobs else {})
    return replace(study, run=study.run.model_copy(update=changes))


def _resume_command(out: Path, *, allow_code: bool) -> str:
    allowed = ["--allow-code"] if allow_code else []
    return join(["lowmem-rl", "experiment", "run", "--resume", *allowed, "--out", str(out)])


def default_out(study: Study) -> Path:
    """Returns where a study goes that has no directory named: named after it and the time."""
    name = re.sub(r"[^\w.-]+", "-", study.name)  # a name with slashes is no way out of here
    return Path("experiments") / f"{name}-{strftime('%Y%m%d-%H%M%S')}"


def launcher_of(study: Study, out: Path, *, force: bool) -> Launcher:
    """Returns what runs the study's trials. Raises `SetupError` if that is not installed or not running."""
    if study.run.on == "ray":
        return RayLauncher(study.run.jobs, out, force=force)
    if study.run.on == "slurm":
        return SlurmLauncher(study.run.jobs, out, study.run.slurm)
    return LocalLauncher(study.run.jobs, this_machine().num_gpus)


def plan_facts(study: Study, plans: Sequence[ArmPlan]) -> dict[str, Any]:
    """Returns what would run as plain JSON data."""
    return {"study": study.name, "finds": _finds(study, plans), "arms": [_facts(study, plan) for plan in plans]}


def plan_page(study: Study, plans: Sequence[ArmPlan]) -> str:
    """Returns a row for each task and arm, then what the study could find."""
    from lowmem_rl_cli.text_page import list_page

    head = ("task", "arm", "differs from the baseline", "memory", "verdict", "minutes a run", "minutes in all")
    page = list_page()
    lines = list(page.listing(head, [_row(_facts(study, plan)) for plan in plans]))
    lines += ["", *(line for text in _sentences(study, plans) for line in page.fold(text, ""))]
    return "\n".join(lines)


def _facts(study: Study, plan: ArmPlan) -> dict[str, Any]:
    time, runs = plan.plan.time, len(study.seeds)
    minutes = None if time is None else time.run.high / 60
    return {
        "task": plan.task,
        "arm": plan.arm,
        "differences": dict(plan.differences),
        "expected_bytes": plan.plan.estimate.expected_bytes,
        "verdict": plan.plan.memory_verdict,
        "minutes_a_run": minutes,
        "minutes": None if minutes is None else minutes * runs,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    differs = ", ".join(f"{key}={toml_value(value)}" for key, value in facts["differences"].items())
    minutes = ["-" if found is None else f"{found:.0f}" for found in (facts["minutes_a_run"], facts["minutes"])]
    memory = f"{facts['expected_bytes'] / GIB:.1f} GiB"
    return (facts["task"], facts["arm"], differs or "-", memory, facts["verdict"], *minutes)


def _finds(study: Study, plans: Sequence[ArmPlan]) -> float | None:
    """Returns the smallest gain that four of five such studies find; None of a reward, whose spread is unknown."""
    if study.metric == "reward":
        return None
    items = plans[0].plan.config.eval.examples
    comparisons = (len(study.arms) - 1) * len(study.tasks)
    return smallest_gain(expected_spread(_HARDEST, items), len(study.seeds), SIGNIFICANT / comparisons)


def _sentences(study: Study, plans: Sequence[ArmPlan]) -> Iterator[str]:
    runs, comparisons = len(study.seeds) * len(plans), (len(study.arms) - 1) * len(study.tasks)
    tuning = (
        sum(len(arm.choices) for arm in study.arms)
        * len(study.tasks)
        * (len(study.tuning.seeds) if study.tuning else 0)
    )
    yield f"{runs} runs and {tuning} to tune. The baseline is {study.baseline}; {study.metric} decides."
    if not study.tuning:
        yield "One learning rate for all arms that set none: it favours those that it suits. [tune] finds one for each."
    found, seeds, tests = _finds(study, plans), len(study.seeds), f"{comparisons} comparison{'s'[comparisons == 1 :]}"
    if study.metric == "reward":
        yield "How large a difference it could find is not known before two seeds have shown their spread."
    elif found is None:
        yield "One seed finds nothing: two runs of one arm differ, too."
    elif found > 1:
        yield f"{seeds} seeds find no difference, however large, in {tests}: add seeds, or drop arms."
    else:
        yield (
            f"It finds a difference of {100 * found:.1f} points in four of five studies: a paired t test over {seeds} "
            f"seeds, {tests}, a spread of {ASSUMED_SPREAD:.2f} between runs of one arm (assumed) and "
            f"{plans[0].plan.config.eval.examples} items."
        )
