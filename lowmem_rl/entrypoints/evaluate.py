"""One evaluation of what is there already, told once: find it, load it, ask, write down; it can be taken up again."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from re import sub
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.preflight import check_weights, plan_here
from lowmem_rl.errors import Interrupted, RewardError, RunDirError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet, held_out
from lowmem_rl.evaluation.eval_target import EvalTarget
from lowmem_rl.evaluation.evaluate import EvalFiles, evaluate
from lowmem_rl.evaluation.prompt_limit import eval_set_with_room
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import check_length, load_shape
from lowmem_rl.storage.lock import exclusive, locked
from lowmem_rl.storage.run_dir import Row, RunDir, default_path, read_json, write_json
from lowmem_rl.storage.run_reader import RunReader
from lowmem_rl.telemetry.events import EvalEnded, EvalProgressed, Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.training.eval_schedule import file_name


@dataclass(frozen=True, slots=True)
class EvalOutput:
    """Where the answers lie, and what they come to: one result a task, each with its name in eval.json."""

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
    """Evaluates `target` on `tasks`, on its own and its configuration's further ones where none is named.

    Raises `ConfigError`, `TaskError`, `RunDirError` or `SetupError` before the model is loaded, `Interrupted` after
    Ctrl-C: the answers so far are kept, and the same call goes on behind them.
    """
    machine = this_machine()
    config = plan_here(target.config, machine).config
    names = list(dict.fromkeys(tasks or target.task_origins))
    check_allowed({name: "--task" if tasks else target.task_origins[name] for name in names}, allow_code=allow_code)
    asked = [_eval_set(target, config, name) for name in names]
    shape = load_shape(config.model.name, config.model.revision)
    check_length(shape, config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens)
    check_weights(config)
    run_dir = _place(target, config, out)
    one_alone = locked(run_dir.eval_lock, lambda text: listen(Note(text)))
    with one_alone, capture_library_output(run_dir.log), _told_if_interrupted(run_dir):
        RunReader(run_dir).evaluations_to_extend()  # what cannot be added to is refused before anything is asked
        listen(PhaseStarted(f"loading {target.name}"))
        device = device_on(machine, config)
        prepare_process(config, device)
        policy = load_policy(config, device, [eval_set.use for eval_set in asked])
        if target.adapter:
            load_adapter(policy.model, target.adapter.path)
        return EvalOutput(run_dir.path, _ask_all(target, policy, config, asked, run_dir, listen))


def _eval_set(target: EvalTarget, config: RunConfig, task: str) -> EvalSet:
    asked = held_out(config, target.asked(task))
    return asked if target.run_dir else replace(asked, in_domain=None)


def _ask_all(
    target: EvalTarget, policy: Policy, config: RunConfig, asked: Sequence[EvalSet], run_dir: RunDir, listen: Listener
) -> dict[str, EvalResult]:
    """Asks one task after the other; each result is written as soon as it is there."""

    def note(text: str) -> None:
        listen(Note(text))

    sampler = Sampler(policy, config, note)
    results: dict[str, EvalResult] = {}
    for eval_set in [eval_set_with_room(policy, eval_set, note) for eval_set in asked]:
        name = _name(target, eval_set.task.name)
        results[name] = _ask(target, sampler, eval_set, EvalFiles.of(run_dir, name), name, listen)
        _write(run_dir, name, target, results[name])
    return results


def _ask(
    target: EvalTarget, sampler: Sampler, asked: EvalSet, files: EvalFiles, name: str, listen: Listener
) -> EvalResult:
    failed: list[RewardError] = []
    result = evaluate(
        sampler,
        asked,
        files,
        step=target.step,
        measures_kl=target.adapter is not None,
        on_progress=lambda done: listen(EvalProgressed(name, done, asked.total)),
        on_failure=failed.append,
    )
    for error in failed:
        listen(Note(str(error)))
    listen(EvalEnded(name, result))
    return result


def _name(target: EvalTarget, task: str) -> str:
    """Returns what the evaluation is called: in a run's directory others lie beside it."""
    if target.run_dir is None or target.adapter is None:
        return file_name(task)
    return f"later-{file_name(target.adapter.path.resolve().name)}-{file_name(task)}"


def _write(run_dir: RunDir, name: str, target: EvalTarget, result: EvalResult) -> None:
    entry: Row = {"name": name, "target": target.name, **result.to_json()}
    with exclusive(run_dir.path):  # a training may be writing there
        told = RunReader(run_dir).evaluations_to_extend()
        others = [other for other in told.get("later") or [] if isinstance(other, dict) and other.get("name") != name]
        write_json(run_dir.evaluations, told | {"later": [*others, entry]})


def _place(target: EvalTarget, config: RunConfig, out: Path | None) -> RunDir:
    """Returns the run's own directory, else `out` or the folder in which the same model was evaluated before.

    Raises `RunDirError` for a folder that holds something else.
    """
    if target.run_dir and out is None:
        return _writable(target.run_dir)
    adapter = str(target.adapter.path.resolve()) if target.adapter else None
    about = {"model": config.model.model_dump(mode="json"), "adapter": adapter}
    found = out or next((path for path in _earlier(target) if _evaluated(path) == about), None)
    run_dir = _writable(RunDir(found or default_path(f"eval-{_slug(target)}")))
    if any(run_dir.path.iterdir()) and _evaluated(run_dir.path) != about:
        raise RunDirError(
            f"{run_dir.path} holds something else than evaluations of {target.name}.",
            hint="Give another folder with --out.",
        )
    write_json(run_dir.evaluated, about)
    return run_dir


def _writable(run_dir: RunDir) -> RunDir:
    """Makes the directory where it is not there. Raises `RunDirError` where nothing can be written into it."""
    try:
        run_dir.path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run_dir.path).close()
    except OSError as error:
        what = f"Answers cannot be written into {run_dir.path}: {error.strerror or error}."
        raise RunDirError(what, hint="Give another folder with --out.") from error
    return run_dir


def _earlier(target: EvalTarget) -> list[Path]:
    """Returns the folders of earlier evaluations, the latest first."""
    return sorted(Path("runs").glob(f"eval-{_slug(target)}-*"), reverse=True)


def _evaluated(path: Path) -> Any:
    file = RunDir(path).evaluated
    return read_json(file) if file.is_file() else None


def _slug(target: EvalTarget) -> str:
    return sub(r"[^\w.-]+", "-", Path(target.name).name) or "model"


@contextlib.contextmanager
def _told_if_interrupted(run_dir: RunDir) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        where = run_dir.path / "eval"
        raise Interrupted(
            f"Stopped by Ctrl-C; the answers so far are kept in {where}.", hint="The same command goes on behind them."
        ) from error
