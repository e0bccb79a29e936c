"""A run that goes on: what its directory says of it, and the directory taken back to its last checkpoint."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lowmem_rl.checkpointing.checkpoint_storage import Checkpoint, newest
from lowmem_rl.config.compose import (
    ConfigLayer,
    ConfigProblem,
    ResolvedConfig,
    SettingEntry,
    as_one_error,
    flatten,
    merge,
    validate,
)
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import ConfigError, RunDirError, SetupError, TaskError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import digest_of
from lowmem_rl.health.audit import DETECTORS
from lowmem_rl.storage.disk import remove_stale_tmp
from lowmem_rl.storage.run_dir import RunDir, drop_rows_after, drop_torn_row, read_json, read_rows, write_json

MAY_CHANGE = ("logging.", "health.", "eval.every", "eval.batch")
"""Keys, or beginnings of keys, that a run may go on with in other values: they change no weight and no result."""
ANEW = "Put it back, or start the run anew in another directory."


@dataclass(frozen=True, slots=True)
class ResumeState:
    """How far a run had come."""

    checkpoint: Checkpoint | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    """What it had counted itself, empty at its beginning."""
    peak_bytes: int = 0
    """The most that its earlier processes held, as far as they could write it down."""
    phases: dict[str, Any] = field(default_factory=dict)
    """What its first process metered, as peak.json holds it."""
    seconds: float = 0.0
    """What finding that out took."""

    @property
    def step(self) -> int:
        """Steps that are done and kept."""
        return self.checkpoint.step if self.checkpoint else 0


def read_composed(run_dir: RunDir) -> ResolvedConfig:
    """Returns the configuration of a run from its directory. Raises `RunDirError`.

    Every value's origin is the file: what stands in it was not named by whoever goes on with the run.
    """
    if not run_dir.config.exists():
        raise RunDirError(
            f"There is no run in {run_dir.path}: it has no config.json.", hint="Leave --resume out to start one."
        )
    found = _read(run_dir.config)
    try:
        config = RunConfig.model_validate(found["config"])
        preset, card = str(found["preset"]), str(found.get("card", "cpu"))
    except (ValidationError, LookupError, TypeError, AttributeError) as error:
        raise RunDirError(f"{run_dir.config} is no configuration of this version.", hint=ANEW) from error
    return ResolvedConfig(config, dict.fromkeys(flatten(config.model_dump()), str(run_dir.config)), preset, card)


def with_changes(saved: ResolvedConfig, layers: Sequence[ConfigLayer]) -> ResolvedConfig:
    """Returns the configuration a run goes on with. Raises `ConfigError` for changes that would make it another run."""
    old = flatten(saved.config.model_dump())
    merged = merge([ConfigLayer(saved.origins["seed"], old), *layers])
    # What the planner chose once stays chosen.
    chosen = {key: entry._replace(value=old[key]) for key, entry in merged.items() if entry.value == "auto"}
    config = validate(merged | chosen, [mistake for layer in layers for mistake in layer.mistakes])
    new = flatten(config.model_dump())
    changed = [key for key in old | new if old.get(key) != new.get(key)]
    refused = [_refusal(key, old, merged) for key in changed if not key.startswith(MAY_CHANGE)]
    if refused:
        cure = f"Leave it out, or start another run. These may change: {', '.join(MAY_CHANGE)}"
        raise ConfigError(str(as_one_error(refused)), hint=cure)
    return ResolvedConfig(config, {key: merged[key].origin for key in new}, saved.preset, saved.card)


def _refusal(key: str, old: Mapping[str, object], merged: Mapping[str, SettingEntry]) -> ConfigProblem:
    given = f"{merged[key].value!r} was given by {merged[key].origin}" if key in merged else "none was given"
    return ConfigProblem(f"{key} is {old.get(key)!r} in this run, and {given}", "It would be another run.")


def save_config_changes(run_dir: RunDir, composed: ResolvedConfig) -> None:
    """Writes down what the run goes on with in other values."""
    found, now = _read(run_dir.config), composed.config.model_dump(mode="json")
    if found["config"] == now:
        return
    named = {key: origin for key, origin in composed.origins.items() if origin != str(run_dir.config)}
    before = found.get("origins")
    origins = {**before, **named} if isinstance(before, dict) else named
    write_json(run_dir.config, {**found, "config": now, "origins": origins})


def is_finished(run_dir: RunDir) -> bool:
    """Says whether there is nothing left to do."""
    return run_dir.evaluations.exists() and bool(_read(run_dir.evaluations).get("comparison"))


def check_device(run_dir: RunDir, device: Device) -> None:
    """Raises `SetupError` where the run began on another kind of device: its numbers would be others."""
    found = _read(run_dir.machine)
    began = (found.get("device"), found.get("dtype"))
    if began != (device.kind, device.dtype):
        raise SetupError(
            f"The run in {run_dir.path} began on {began[0]} in {began[1]}; here it would go on on {device.kind} "
            f"in {device.dtype}.",
            hint="Go on with it on such a machine, or start it anew here.",
        )


def environment_change_notes(run_dir: RunDir, here: Mapping[str, Any]) -> list[str]:
    """Returns a note where the run began on another card or with other versions; `here` is this machine's record."""
    began = _read(run_dir.machine)
    then, now = began.get("versions"), here["versions"]
    then = then if isinstance(then, dict) else {}
    cards = [f"{began.get('gpu')} -> {here['gpu']}"] if began.get("gpu") != here["gpu"] else []
    changed = cards + [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    return [f"goes on exactly, but rounds as this machine does: {', '.join(changed)}"] if changed else []


def previous_findings_note(run_dir: RunDir) -> list[str]:
    """Returns a note where the last audit left something critical: from the same weights it may come to that again."""
    try:
        findings = _read(run_dir.health).get("findings") if run_dir.health.exists() else None
    except RunDirError:  # the next audit writes another
        return []
    found = [one for one in findings if isinstance(one, dict)] if isinstance(findings, list) else []
    grave = [one.get("name") for one in found if (one.get("severity"), one.get("lasts")) == ("critical", True)]
    named = [symptom.name for symptom in DETECTORS if symptom.name in grave]
    return (
        [f"its last audit found {', '.join(named)}: it may come to that again (lowmem-rl doctor RUN)"] if named else []
    )


def used_force(run_dir: RunDir) -> bool:
    """Says whether the run was started with --force."""
    return bool(_read(run_dir.estimate).get("forced"))


def restore_run_dir(run_dir: RunDir, config: RunConfig, tell: Callable[[str], None]) -> ResumeState:
    """Takes the directory back to its newest whole checkpoint, or to its beginning; returns how far the run is then.

    Raises `RunDirError` where no checkpoint is whole, or the rows that lead to it are missing.
    """
    began = time.monotonic()
    for folder in (run_dir.path, run_dir.checkpoints):
        remove_stale_tmp(folder)
    checkpoint = newest(run_dir, tell)
    step = checkpoint.step if checkpoint else 0
    for rows in (run_dir.metrics, run_dir.samples, run_dir.order, run_dir.rollbacks, run_dir.recoveries):
        drop_rows_after(rows, step)
    drop_torn_row(run_dir.resumes)
    _check_rows(run_dir, step, order_moves=config.curriculum.how == "window")
    _check_evaluations(run_dir, step)
    return ResumeState(
        checkpoint,
        checkpoint.read_counts() if checkpoint else {},
        max(
            (row["peak_bytes"] for row in read_rows(run_dir.metrics) if isinstance(row.get("peak_bytes"), int)),
            default=0,
        ),
        _phases(run_dir, tell),
        time.monotonic() - began,
    )


def _phases(run_dir: RunDir, tell: Callable[[str], None]) -> dict[str, Any]:
    """What is beside the run must not keep it from going on."""
    try:
        found = _read(run_dir.peak) if run_dir.peak.exists() else {}
    except RunDirError as error:
        tell(f"what the first step held is lost: {error}")
        found = {}
    return {name: found[name] for name in ("phases", "metered_step") if name in found}


def check_examples(standing: ResumeState, examples: Sequence[Example]) -> None:
    """Raises `TaskError` where the task gives other examples than when the run began."""
    if standing.counts and standing.counts.get("examples") != digest_of(examples):
        raise TaskError(
            "The task gives other examples than when this run began: its data have changed.",
            hint="Put the data back as they were, or start the run anew in another directory.",
        )


def _check_rows(run_dir: RunDir, step: int, *, order_moves: bool) -> None:
    """Raises `RunDirError` where the rows that lead to `step` are missing; a moving order is made of all of its own."""
    rows = list(read_rows(run_dir.metrics))
    last = max((row["step"] for row in rows), default=0)
    if last != step:
        raise RunDirError(
            f"{run_dir.metrics} ends at step {last}, and the last checkpoint is of step {step}.", hint=ANEW
        )
    drawn = {row["step"] for row in read_rows(run_dir.order)}
    if step and not drawn:
        raise RunDirError(f"{run_dir.order} is missing or empty.", hint=ANEW)
    lacking = [row["step"] for row in rows if "reward" in row and row["step"] not in drawn]
    if order_moves and lacking:
        raise RunDirError(f"{run_dir.order} lacks what was sampled for step {lacking[0]}.", hint=ANEW)


def _check_evaluations(run_dir: RunDir, step: int) -> None:
    found = _read(run_dir.evaluations) if run_dir.evaluations.exists() else {}
    if step and not found.get("before"):
        raise RunDirError(f"{run_dir.evaluations} is missing, or has no evaluation before training.", hint=ANEW)
    try:
        for result in (found.get("before"), *found.get("during", ())):
            if result is not None:
                EvalResult.from_json(result)
    except TypeError as error:
        raise RunDirError(f"{run_dir.evaluations} holds no evaluations of this version.", hint=ANEW) from error


def _read(path: Path) -> Mapping[str, Any]:
    """Reads a file of the run that must be there and hold a table."""
    try:
        found = read_json(path)
    except RunDirError as error:
        raise RunDirError(str(error), hint=ANEW) from error
    if not isinstance(found, dict):
        raise RunDirError(f"{path} holds no table.", hint=ANEW)
    return found
