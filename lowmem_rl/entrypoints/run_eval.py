"""Evaluates a run or a model: load it, answer the held-out prompts, write the results. It can be resumed."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from re import sub
from typing import Any

from lowmem_rl.config.places import EVAL_TASKS, MODEL, TASK, check_places
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.engine.adapter import check_base, load_adapter
from lowmem_rl.engine.device import device_on, dtype_fault
from lowmem_rl.engine.policy import Policy, prepare_process
from lowmem_rl.engine.reference import load_policy_at_start
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.threads import recorded_threads
from lowmem_rl.entrypoints.preflight import check_weights
from lowmem_rl.errors import Interrupted, RewardError, RunDirError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet, held_out
from lowmem_rl.evaluation.eval_target import EvalTarget
from lowmem_rl.evaluation.evaluate import EvalFiles, evaluate
from lowmem_rl.evaluation.prompt_limit import eval_set_with_room
from lowmem_rl.memory.calibration import calibration_for
from lowmem_rl.models.hardware import Machine, this_machine
from lowmem_rl.models.lookup import check_bits, check_length, load_shape
from lowmem_rl.planning.search import resolve_auto
from lowmem_rl.storage.lock import exclusive, locked
from lowmem_rl.storage.run_dir import Row, RunDir, default_path, read_json, write_json
from lowmem_rl.storage.run_reader import RunReader
from lowmem_rl.telemetry.events import EvalEnded, EvalProgressed, Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.training.eval_schedule import file_name


@dataclass(frozen=True, slots=True)
class EvalOutput:
    """The folder of the answers, and one result per task by its name in eval.json."""

    path: Path
    results: dict[str, EvalResult]


def run_eval(
    target: EvalTarget,
    tasks: Sequence[str],
    out: Path | None = None,
    listen: Listener = lambda event: None,
    *,
    allow_code: bool = False,
) -> EvalOutput:
    """Evaluates `target` on `tasks`, or on the tasks of its configuration if there are none.

    Raises `ConfigError`, `TaskError`, `RunDirError` or `SetupError` before the model is loaded, `Interrupted` after
    Ctrl-C: the answers so far are saved, and the same call continues after them.
    """
    machine, written = this_machine(), target.config
    if target.run_dir:
        own = {} if tasks else {TASK: written.task.name, "task.path": written.task.path, EVAL_TASKS: written.eval.tasks}
        check_places({MODEL: written.model.name} | own)
    shape = load_shape(written.model.name, written.model.revision)
    known = calibration_for(machine.card, "unsloth")
    config = resolve_auto(written, shape, machine.usable_bytes, machine.card, known)
    names = list(dict.fromkeys(tasks or target.task_origins))
    check_allowed({name: "--task" if tasks else target.task_origins[name] for name in names}, allow_code=allow_code)
    eval_sets = [_held_out(target, config, name) for name in names]
    check_bits(shape, config.model.bits)
    check_length(shape, config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens)
    check_weights(config)
    if target.adapter:
        check_base(target.adapter.path, config.model)
    run_dir = _output_dir(target, config, out)
    lock = locked(run_dir.eval_lock, lambda text: listen(Note(text)))
    with lock, capture_library_output(run_dir.log), _as_interrupted(run_dir):
        RunReader(run_dir).evaluations_to_extend()  # refused before the model is loaded
        listen(PhaseStarted(f"loading {target.name}"))
        config, policy = _loaded(target, config, machine, eval_sets, listen)
        return EvalOutput(run_dir.path, _evaluate_all(target, policy, config, eval_sets, run_dir, listen))


def _loaded(
    target: EvalTarget, config: RunConfig, machine: Machine, eval_sets: Sequence[EvalSet], listen: Listener
) -> tuple[RunConfig, Policy]:
    """Loads the model with what the target has learned; of a start that is gone the base model takes the place."""
    device = device_on(machine, config)
    if fault := dtype_fault(config, device):
        listen(Note(fault))
    if config.start_from and not Path(config.start_from).is_dir():
        listen(Note(f"the KL divergence is from the base model: {config.start_from} is gone, the run's start"))
        config = config.model_copy(update={"start_from": None})
    prepare_process(config, device)
    threads = recorded_threads(target.run_dir) if target.run_dir else None
    policy = load_policy_at_start(config, device, [eval_set.use for eval_set in eval_sets], threads)
    if target.adapter:
        load_adapter(policy.model, target.adapter.path)
    return config, policy


def _held_out(target: EvalTarget, config: RunConfig, name: str) -> EvalSet:
    """Returns a task's held-out items; only a run knows which of them are of the kind that it trained on."""
    found = held_out(config, target.asked(name))
    return found if target.run_dir else replace(found, in_domain=None)


def _evaluate_all(
    target: EvalTarget,
    policy: Policy,
    config: RunConfig,
    eval_sets: Sequence[EvalSet],
    run_dir: RunDir,
    listen: Listener,
) -> dict[str, EvalResult]:
    """Evaluates one task after the other and writes each result at once."""

    def note(text: str) -> None:
        listen(Note(text))

    sampler = Sampler(policy, config, note)
    results: dict[str, EvalResult] = {}
    for eval_set in [eval_set_with_room(policy, eval_set, note) for eval_set in eval_sets]:
        name = file_name(eval_set.task.name)
        if target.run_dir and target.adapter:  # the run's directory has its own evaluations
            name = f"later-{file_name(target.adapter.path.resolve().name)}-{name}"
        failed: list[RewardError] = []

        def progress(done: int, name: str = name, total: int = eval_set.total) -> None:
            listen(EvalProgressed(name, done, total))

        results[name] = evaluate(
            sampler,
            eval_set,
            EvalFiles.of(run_dir, name),
            step=target.step,
            measures_kl=target.adapter is not None,
            on_progress=progress,
            on_failure=failed.append,
        )
        for error in failed:
            note(str(error))
        listen(EvalEnded(name, results[name]))
        _write(run_dir, name, target, results[name])
    return results


def _write(run_dir: RunDir, name: str, target: EvalTarget, result: EvalResult) -> None:
    entry: Row = {"name": name, "target": target.name, **result.to_json()}
    with exclusive(run_dir.path):  # a training may be writing there
        reported = RunReader(run_dir).evaluations_to_extend()
        others = [one for one in reported.get("later") or [] if isinstance(one, dict) and one.get("name") != name]
        write_json(run_dir.evaluations, reported | {"later": [*others, entry]})


def _output_dir(target: EvalTarget, config: RunConfig, out: Path | None) -> RunDir:
    """Returns the run's own directory, else `out` or the latest folder in which the same model was evaluated.

    Raises `RunDirError` if a folder has other contents.
    """
    if target.run_dir and out is None:
        return _writable(target.run_dir)
    adapter = str(target.adapter.path.resolve()) if target.adapter else None
    about = {"model": config.model.model_dump(mode="json"), "adapter": adapter}
    slug = sub(r"[^\w.-]+", "-", Path(target.name).name) or "model"
    earlier = sorted(Path("runs").glob(f"eval-{slug}-*"), reverse=True)
    found = out or next((path for path in earlier if _evaluated(path) == about), None)
    run_dir = _writable(RunDir(found) if found else RunDir.create_new(default_path(f"eval-{slug}")))
    if any(run_dir.path.iterdir()) and _evaluated(run_dir.path) != about:
        raise RunDirError(
            f"{run_dir.path} has other contents than evaluations of {target.name}.",
            hint="Choose another folder with --out.",
        )
    write_json(run_dir.evaluated, about)
    return run_dir


def _writable(run_dir: RunDir) -> RunDir:
    """Creates the directory if it is missing. Raises `RunDirError` if it cannot be written."""
    try:
        run_dir.path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run_dir.path).close()
    except OSError as error:
        what = f"Answers cannot be written into {run_dir.path}: {error.strerror or error}."
        raise RunDirError(what, hint="Choose another folder with --out.") from error
    return run_dir


def _evaluated(path: Path) -> Any:
    file = RunDir(path).evaluated
    return read_json(file) if file.is_file() else None


@contextlib.contextmanager
def _as_interrupted(run_dir: RunDir) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        what = f"Stopped by Ctrl-C; the answers so far are in {run_dir.path / 'eval'}."
        raise Interrupted(what, hint="The same command continues after them.") from error
