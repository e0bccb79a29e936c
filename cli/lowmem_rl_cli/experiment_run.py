"""`lowmem-rl experiment run`: checks every arm, prints the plan, and runs it."""

import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join
from time import strftime
from typing import Any

from lowmem_rl.entrypoints.preflight import check_card
from lowmem_rl.errors import ConfigError, Interrupted, SetupError, TrainingError
from lowmem_rl.experiment.environment_changes import card_of_runs, changes_since, environment_here
from lowmem_rl.experiment.launch import Launcher, LocalLauncher
from lowmem_rl.experiment.on_ray import RayLauncher
from lowmem_rl.experiment.on_slurm import SlurmLauncher
from lowmem_rl.experiment.run_study import read_outcomes, run_study
from lowmem_rl.experiment.study import Study, read_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trial_configs import ArmPlan, check_study, resolve_trial
from lowmem_rl.experiment.trials import final_trials
from lowmem_rl.experiment.verdicts import compare_arms
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.planning.gate import gate
from lowmem_rl.planning.run_cost import check_price
from lowmem_rl.stack import check_installed
from lowmem_rl_cli import console
from lowmem_rl_cli.experiment_plan import plan_facts, plan_page


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
    price: float | None,
) -> None:
    """Checks a study, then prints or runs it; `price` is that of an hour of the card."""
    check_price(price, "--price-per-hour")
    study = _placed(_read(file, out, resume=resume), *where)
    plans = check_study(study, allow_code=allow_code)
    if dry_run:
        spread = _seen_spread(study, StudyDir(out)) if resume and out else None
        if as_json:
            console.show_json(plan_facts(study, plans, price, spread))
        else:
            console.show(plan_page(study, plans, price, spread))
    if not force:
        _check_gate(plans)
    if resume and out:
        _check_environment(study, StudyDir(out), force=force)
    if dry_run:
        return
    check_installed()
    if study.run.on == "local":
        check_card(resolve_trial(study, next(final_trials(study)), {}), this_machine())
    directory, launcher = _opened(study, out, resume=resume, force=force)
    _run(study, directory, launcher, force=force, allow_code=allow_code)
    from lowmem_rl_cli.experiment_view import report_command

    report_command(directory.path, None, price, as_json=as_json)
    _check_all_done(study, directory, force=force, allow_code=allow_code)


def _seen_spread(study: Study, directory: StudyDir) -> float | None:
    return compare_arms(study, read_outcomes(study, directory)).spread


def _run(study: Study, directory: StudyDir, launcher: Launcher, *, force: bool, allow_code: bool) -> None:
    """Runs what is missing. Raises `Interrupted` with the command that continues."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler: runs save, as after Ctrl-C
    console.say(f"{len(list(final_trials(study)))} runs, at most {launcher.jobs} at once, in {directory.path}")
    try:
        run_study(study, directory, launcher, console.say, force=force)
    except KeyboardInterrupt as error:
        hint = f"Continue with: {_resume_command(directory.path, force=force, allow_code=allow_code)}"
        raise Interrupted("The study was stopped; its runs have saved.", hint=hint) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_gate(plans: Sequence[ArmPlan]) -> None:
    """Raises `DoesNotFit` or `NoSignal` for the first arm that `train` would refuse."""
    for plan in plans:
        for refusal in gate(plan.plan, force=True):
            raise type(refusal)(f"Arm {plan.arm}: {refusal}", hint=refusal.hint)


def _check_environment(study: Study, directory: StudyDir, *, force: bool) -> None:
    """Raises `SetupError` if further runs would differ from those that are there in more than their arms."""
    changes = changes_since(study, directory, environment_here())
    if not changes:
        return
    what = f"Runs in {directory.path} were made on another card or with other software than is here: {changes}."
    if not force:
        hint = "Restore those, or begin a new study; --force continues, and the page says in what its runs differ."
        raise SetupError(what, hint=hint)
    console.say(f"warning: {what}")


def _check_all_done(study: Study, directory: StudyDir, *, force: bool, allow_code: bool) -> None:
    """Raises `TrainingError` if a run failed: the study is complete without it, and a script must know."""
    outcomes = read_outcomes(study, directory)
    if failed := [one for one in outcomes if one.status == "failed"]:
        what = f"{len(failed)} of {len(outcomes)} runs failed; each counts as far as it came."
        again = _resume_command(directory.path, force=force, allow_code=allow_code)
        raise TrainingError(what, hint=f"See {directory.path / 'logs'}. Try them again: {again}")


def _opened(study: Study, out: Path | None, *, resume: bool, force: bool) -> tuple[StudyDir, Launcher]:
    """Returns the study's directory, a new one unless it resumes, and what runs it; without that it leaves nothing."""
    directory = StudyDir(out) if resume and out else StudyDir.create(out or default_out(study), study)
    try:
        return directory, launcher_of(study, directory, force=force)
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


def _resume_command(out: Path, *, force: bool, allow_code: bool) -> str:
    allowed = [*(["--force"] if force else []), *(["--allow-code"] if allow_code else [])]
    return join(["lowmem-rl", "experiment", "run", "--resume", *allowed, "--out", str(out)])


def default_out(study: Study) -> Path:
    """Returns the directory of a study if --out is not given: named after the study and the time."""
    name = re.sub(r"[^\w.-]+", "-", study.name)  # a name with slashes is no way out of here
    return Path("experiments") / f"{name}-{strftime('%Y%m%d-%H%M%S')}"


def launcher_of(study: Study, directory: StudyDir, *, force: bool) -> Launcher:
    """Returns what runs the study's trials. Raises `SetupError` if that is not installed or not running."""
    jobs, out = study.run.jobs, directory.path.resolve()
    if study.run.on == "ray":
        return RayLauncher(jobs, out, card=card_of_runs(study, directory), force=force)
    if study.run.on == "slurm":
        card = card_of_runs(study, directory)
        return SlurmLauncher(jobs, out, study.run.slurm, card=card, force=force)
    return LocalLauncher(jobs, this_machine().num_gpus)
