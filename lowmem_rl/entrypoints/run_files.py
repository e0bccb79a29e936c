"""The run directory before the first step: what a new run writes, and what a resumed run reads."""

from collections.abc import Callable
from dataclasses import replace

from lowmem_rl.checkpointing.resume import (
    ResumeState,
    check_device,
    check_same_start,
    check_weights,
    environment_change_notes,
    previous_findings_note,
    restore_run_dir,
    used_force,
)
from lowmem_rl.checkpointing.resume_config import save_config_changes
from lowmem_rl.config.compose import ResolvedConfig, flatten
from lowmem_rl.config.places import check_places
from lowmem_rl.engine.adapter import check_base
from lowmem_rl.engine.lineage import stages_before
from lowmem_rl.entrypoints.preflight import PreparedRun, prepare
from lowmem_rl.errors import DoesNotFit, RunDirError
from lowmem_rl.models.fingerprint import fingerprint
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.planning.explain import advice_of
from lowmem_rl.planning.overrides import planner_origins
from lowmem_rl.storage.run_dir import Row, RunDir, write_json
from lowmem_rl.telemetry.environment import environment_record


def write_run_files(run_dir: RunDir, composed: ResolvedConfig, prepared: PreparedRun) -> None:
    """Writes what is known before the run. Raises `RunDirError` if the directory cannot be written."""
    resolved = prepared.plan.config.model_dump(mode="json")
    origins = dict(composed.origins) | planner_origins(composed.config)
    forced = [str(refusal) for refusal in prepared.overridden]
    known: Row = {"preset": composed.preset, "card": composed.card, "config": resolved, "origins": origins}
    if stages := stages_before(prepared.plan.config):
        known["lineage"] = stages
    model = prepared.plan.config.model
    machine = environment_record(this_machine(), prepared.device) | {"weights": fingerprint(model.name, model.revision)}
    try:
        write_json(run_dir.machine, machine)
        estimate = prepared.plan.to_json(advice_of(prepared.plan))
        depth = prepared.plan.target.shape.num_layers
        write_json(run_dir.estimate, estimate | {"forced": forced, "num_layers": depth})
        write_json(run_dir.config, known)  # the last one: a run that has it can be resumed
    except OSError as error:
        run_dir.undo()
        what = f"{run_dir.path} cannot be written: {error.strerror}."
        raise RunDirError(what, hint="Give another with --out.") from error


def reopen_run(
    run_dir: RunDir, composed: ResolvedConfig, report: Callable[[str], None], *, force: bool
) -> tuple[PreparedRun, ResumeState]:
    """Takes the directory back to its last checkpoint; returns what the run needs, with notes on what has changed.

    Raises as `check_places` and `prepare` do; also `DoesNotFit`, `SetupError` for another kind of device, `RunDirError`
    for a damaged directory.
    """
    check_places(flatten(composed.config.model_dump()))
    prepared = prepare(composed, force=True)  # the gate was passed when the run began
    for refusal in prepared.overridden:
        if isinstance(refusal, DoesNotFit) and not (force or used_force(run_dir)):
            raise refusal
    check_device(run_dir, prepared.device)
    check_weights(run_dir, prepared.plan.config.model)
    check_same_start(run_dir, prepared.plan.config.start_from)
    notes = environment_change_notes(run_dir, environment_record(this_machine(), prepared.device))
    notes = [*prepared.notes, *notes, *previous_findings_note(run_dir)]
    state = restore_run_dir(run_dir, composed.config, report)
    if state.checkpoint:
        check_base(state.checkpoint.path, prepared.plan.config.model)
    try:
        save_config_changes(run_dir, composed)
    except OSError as error:
        what = f"{run_dir.config} cannot be written: {error.strerror}."
        raise RunDirError(what, hint="Fix that, and repeat the command.") from error
    return replace(prepared, overridden=(), notes=tuple(notes)), state
