"""Resuming a run: its directory is taken back to its last checkpoint, and checked."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import Checkpoint, newest
from lowmem_rl.checkpointing.resume_config import RESUME_HINT
from lowmem_rl.checkpointing.trainer_state import STATE
from lowmem_rl.config.run_config import ModelConfig, RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.lineage import adapter_digest
from lowmem_rl.errors import RunDirError, SetupError, TaskError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import digest_of
from lowmem_rl.health.audit import DETECTORS
from lowmem_rl.models.fingerprint import fingerprint
from lowmem_rl.storage.disk import remove_stale_tmp
from lowmem_rl.storage.run_dir import RunDir, drop_rows_after, drop_torn_row, read_json, read_rows
from lowmem_rl.storage.run_reader import RunReader, number, part, rows_in


@dataclass(frozen=True, slots=True)
class ResumeState:
    """How far a run had come."""

    checkpoint: Checkpoint | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    """The hooks' own state, empty at the beginning."""
    peak_bytes: int = 0
    """The most that its earlier processes held, as far as they could record it."""
    phases: dict[str, Any] = field(default_factory=dict)
    """What its first process profiled, as peak.json holds it."""
    seconds: float = 0.0
    """What restoring the directory took."""
    planned_steps: int = 0
    """The steps of the whole run when its checkpoint was written; it may have been extended since."""

    @property
    def step(self) -> int:
        """Steps that are done and kept."""
        return self.checkpoint.step if self.checkpoint else 0


def is_finished(run_dir: RunDir, steps: int) -> bool:
    """True if there is nothing left to do in a run of so many steps. Raises `RunDirError` for a damaged eval.json, and
    for a finished run that is to take more steps and has no checkpoint to start from.
    """
    reader = _reader(run_dir)
    if not reader.eval_file.get("comparison"):
        return False
    last = number(reader.evaluations.after, "step")
    if last is None or last >= steps:
        return True
    if not any(run_dir.checkpoints.glob("step-*")):
        what = f"The run in {run_dir.path} is finished and has no checkpoint from which it could take more steps."
        raise RunDirError(what, hint="Bring its checkpoints back, or start another run.")
    return False


def used_force(run_dir: RunDir) -> bool:
    """True if the run was started with --force. Raises `RunDirError` for a damaged estimate.json."""
    return bool(_reader(run_dir).table(run_dir.estimate, required=True).get("forced"))


def check_device(run_dir: RunDir, device: Device) -> None:
    """Raises `SetupError` if the run began on another kind of device: its numbers would be different."""
    found = _reader(run_dir).table(run_dir.machine, required=True)
    began = (found.get("device"), found.get("dtype"))
    if began != (device.kind, device.dtype):
        raise SetupError(
            f"The run in {run_dir.path} began on {began[0]} in {began[1]}; here it would continue on {device.kind} "
            f"in {device.dtype}.",
            hint="Resume it on such a machine, or start it again here.",
        )


def check_weights(run_dir: RunDir, model: ModelConfig) -> None:
    """Raises `RunDirError` if the frozen weights are others than when the run began: its adapter belongs to those."""
    began = _reader(run_dir).table(run_dir.machine, required=True).get("weights")
    here = fingerprint(model.name, model.revision)
    if began and here and began != here:
        raise RunDirError(
            f"The weights of {model.name} are others than when the run in {run_dir.path} began.",
            hint="Give the folder with the run's own model: --model FOLDER",
        )


def check_same_start(run_dir: RunDir, start_from: str | None) -> None:
    """Raises `RunDirError` if the adapter that the run began with, its KL reference, is another one now."""
    stages = rows_in(_reader(run_dir).config_file, "lineage")
    if start_from and stages and stages[-1].get("weights") not in (None, adapter_digest(Path(start_from))):
        raise RunDirError(
            f"The adapter in {start_from} is another than when the run in {run_dir.path} began with it.",
            hint="Give the folder with that adapter: --from FOLDER",
        )


def check_examples(state: ResumeState, examples: Sequence[Example]) -> None:
    """Raises `TaskError` if the task gives other examples than when the run began."""
    if state.counts and state.counts.get("examples") != digest_of(examples):
        raise TaskError(
            "The task gives other examples than when this run began: its data have changed.",
            hint="Restore the data, or start the run again in another directory.",
        )


def environment_change_notes(run_dir: RunDir, here: Mapping[str, Any]) -> list[str]:
    """Returns a note if the run began on another card or with other versions; `here` is this machine's record."""
    began = _reader(run_dir).table(run_dir.machine, required=True)
    then, now = part(began, "versions"), here["versions"]
    cards = [f"{began.get('gpu')} -> {here['gpu']}"] if began.get("gpu") != here["gpu"] else []
    changed = cards + [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    return [f"continues exactly, but rounds as this machine does: {', '.join(changed)}"] if changed else []


def previous_findings_note(run_dir: RunDir) -> list[str]:
    """Returns a note if the last audit left a critical finding: the same weights may lead to it again."""
    try:
        findings = rows_in(_reader(run_dir).health, "findings")
    except RunDirError:  # the next audit writes another
        return []
    critical = [one.get("name") for one in findings if (one.get("severity"), one.get("lasts")) == ("critical", True)]
    named = [detector.name for detector in DETECTORS if detector.name in critical]
    return [f"its last audit found {', '.join(named)}: that may happen again (lowmem-rl doctor RUN)"] if named else []


def restore_run_dir(run_dir: RunDir, config: RunConfig, report: Callable[[str], None]) -> ResumeState:
    """Takes the directory back to its newest whole checkpoint, or to its beginning; returns how far the run is then.

    Raises `RunDirError` if no checkpoint is whole, or if the rows that lead to it are missing.
    """
    began = time.monotonic()
    for folder in (run_dir.path, run_dir.checkpoints):
        remove_stale_tmp(folder)
    checkpoint = newest(run_dir, report)
    step = checkpoint.step if checkpoint else 0
    tables = (run_dir.metrics, run_dir.samples, run_dir.order, run_dir.rollbacks, run_dir.recoveries, run_dir.trainable)
    for rows in tables:
        drop_rows_after(rows, step)
    drop_torn_row(run_dir.resumes)
    _check_rows(run_dir, step, is_adaptive=config.curriculum.how == "window")
    _check_evaluations(run_dir, step)
    peaks = (row.get("peak_bytes") for row in read_rows(run_dir.metrics))
    return ResumeState(
        checkpoint,
        checkpoint.read_counts() if checkpoint else {},
        max((peak for peak in peaks if isinstance(peak, int)), default=0),
        _profiled_phases(run_dir, report),
        time.monotonic() - began,
        _planned_steps(checkpoint) if checkpoint else 0,
    )


def _planned_steps(checkpoint: Checkpoint) -> int:
    return int(read_json(checkpoint.path / STATE)["max_steps"])


def _profiled_phases(run_dir: RunDir, report: Callable[[str], None]) -> dict[str, Any]:
    """A side result must not keep a run from resuming."""
    try:
        found = _reader(run_dir).peak
    except RunDirError as error:
        report(f"the memory profile of the first step is lost: {error}")
        found = {}
    return {name: found[name] for name in ("phases", "metered_step") if name in found}


def _check_rows(run_dir: RunDir, step: int, *, is_adaptive: bool) -> None:
    """Raises `RunDirError` if rows that lead to `step` are missing; an adaptive order is made of all of its own."""
    rows = list(read_rows(run_dir.metrics))
    last = max((row["step"] for row in rows), default=0)
    if last != step:
        what = f"{run_dir.metrics} ends at step {last}, and the last checkpoint is of step {step}."
        raise RunDirError(what, hint=RESUME_HINT)
    asked = {row["step"] for row in read_rows(run_dir.order)}
    if step and not asked:
        raise RunDirError(f"{run_dir.order} is missing or empty.", hint=RESUME_HINT)
    lacking = [row["step"] for row in rows if "reward" in row and row["step"] not in asked]
    if is_adaptive and lacking:
        raise RunDirError(f"{run_dir.order} lacks what was sampled for step {lacking[0]}.", hint=RESUME_HINT)


def _check_evaluations(run_dir: RunDir, step: int) -> None:
    found = _reader(run_dir).eval_file
    if step and not found.get("before"):
        raise RunDirError(f"{run_dir.evaluations} is missing, or has no evaluation before training.", hint=RESUME_HINT)
    with _reader(run_dir).parsing(run_dir.evaluations, "does not hold evaluations of this version"):
        for result in (found.get("before"), *found.get("during", ())):
            if result is not None:
                EvalResult.from_json(result)


def _reader(run_dir: RunDir) -> RunReader:
    return RunReader(run_dir, RESUME_HINT)
