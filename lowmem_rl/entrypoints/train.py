"""One run from top to bottom: prepare, load, evaluate, train, evaluate, save. `training.step` describes a step."""

from pathlib import Path

from lowmem_rl.checkpointing.resume import ResumeState, is_finished
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.entrypoints.load_run import load_run, note_plan
from lowmem_rl.entrypoints.preflight import PreparedRun, prepare
from lowmem_rl.entrypoints.run_context import RunContext
from lowmem_rl.entrypoints.run_files import reopen_run, write_run_files
from lowmem_rl.entrypoints.select_layers import with_selected_layers
from lowmem_rl.entrypoints.train_steps import take_best, train_steps
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.storage.disk import DiskFullRetry, retry_when_disk_full
from lowmem_rl.storage.lock import locked
from lowmem_rl.storage.run_dir import RunDir, default_path
from lowmem_rl.telemetry.events import Listener, Note, isolate_listener
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.telemetry.trackers import trackers_in
from lowmem_rl.training.adapter_saver import AdapterSaver
from lowmem_rl.training.run_result import RunResult
from lowmem_rl.training.signals import handle_stop_signals


def run(
    composed: ResolvedConfig,
    out: Path | None,
    listen: Listener = lambda event: None,
    *,
    force: bool = False,
    pass_rate: PassRate | None = None,
) -> RunResult:
    """Trains one run into `out`, or into a new `runs/PRESET-TIME` if it is None.

    `force` starts one that would not fit or carries no signal at `pass_rate`. Raises, before anything expensive:
    `ConfigError`, `TaskError`, `SetupError`, `DoesNotFit`, `NoSignal`, `RunDirError`; later `TrainingError`, and
    `Interrupted` after saving the adapter. A run that fails before its first step leaves `out` as it was.
    """
    prepared = prepare(composed, force=force, pass_rate=pass_rate)
    run_dir = RunDir.create(out) if out else RunDir.create_new(default_path(composed.preset))
    listen = isolate_listener(listen)
    with locked(run_dir.lock, lambda text: listen(Note(text))):
        write_run_files(run_dir, composed, prepared)  # under the lock: of two that start here at once, one may write
        return _run(run_dir, prepared, listen, None)


def resume(
    composed: ResolvedConfig, out: Path, listen: Listener = lambda event: None, *, force: bool = False
) -> RunResult | None:
    """Continues the run in `out`, exactly, and returns what it was worth; None if it is finished already.

    `composed` is what `resume_config.read_composed` found there, perhaps with more steps: then the run continues as
    the longer one. Raises as `run` does, and `RunDirError` for a
    directory that is in use, damaged, or of another version.
    """
    run_dir, listen = RunDir(out), isolate_listener(listen)
    with locked(run_dir.lock, lambda text: listen(Note(text))):
        if is_finished(run_dir, composed.config.grpo.steps):
            return None
        prepared, state = reopen_run(run_dir, composed, lambda text: listen(Note(text)), force=force)
        return _run(run_dir, prepared, listen, state)


def _run(run_dir: RunDir, prepared: PreparedRun, listen: Listener, state: ResumeState | None) -> RunResult:
    with capture_library_output(run_dir.log), handle_stop_signals() as stop:
        context = RunContext.of(run_dir, prepared, listen, state, stop)
        with (
            retry_when_disk_full(DiskFullRetry(context.note, stop.sleep)),
            isolated(prepared.rewards) as rewards,  # a user's reward that hangs costs one completion
            context.shutdown.report_on_exit(),
            trackers_in(run_dir.trackers, context.trackers),
        ):
            return _load_and_train(context, rewards)


def _load_and_train(context: RunContext, rewards: RewardSet) -> RunResult:
    shutdown, oom_policy, state = context.shutdown, context.oom_policy, context.resume_state
    with shutdown.cleanup_on_failure(), oom_policy.raising_on_oom("evaluation", lambda: "Before the first step"):
        note_plan(context)
        context = with_selected_layers(context, rewards)
        loaded = load_run(context, rewards)
        before = loaded.evaluations.before()
        context.profiler.end("evaluation")
    checkpoint = state.checkpoint.path if state.checkpoint else None
    saver = AdapterSaver(context.run_dir, loaded.policy, oom_policy, context.peaks, checkpoint)
    with shutdown.save_adapter_on_exit(lambda: saver.save(context.listen)):
        if state.step < context.config.grpo.steps:
            train_steps(context, loaded, saver)
        else:
            saver.load_checkpoint()
            context.trackers.begin_without_trainer(context.run_dir.trackers, state.step)
        take_best(context, loaded)
    with (
        shutdown.as_interrupted("the training is done and saved, its final evaluation is not"),
        oom_policy.raising_on_oom("evaluation", lambda: "In the final evaluation"),
    ):
        after = loaded.evaluations.after()
    reported, best = loaded.evaluations.reported, loaded.evaluations.best
    assert best is not None
    return RunResult(context.run_dir.path, before, after, reported["comparison"], best)
