"""Proof that a run resumes exactly: a tiny training is killed many times and ends like one that was not.

The kills are SIGKILLs at random moments: while the model loads, during a step, while a checkpoint is written, and in
the final evaluation. The configuration has what is hard to resume: rollouts that two steps share, a moving
curriculum, dropout, a learning rate schedule with warm-up, 8-bit optimizer states.
"""

import contextlib
import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import Checkpoint, newest
from lowmem_rl.config.compose import ResolvedConfig, read_assignments, resolve
from lowmem_rl.config.rules import BY_GRADIENT
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.engine.threads import VARIABLE
from lowmem_rl.entrypoints.preflight import check_settings
from lowmem_rl.errors import ConfigError, TrainingError
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from lowmem_rl.telemetry.metrics import MEASURED

_SETTINGS = (
    "adapter.dropout=0.1",
    "curriculum.by=pass_rate",
    "curriculum.how=window",
    "eval.every=4",
    "eval.examples=8",
    "eval.quick_examples=4",
    "grpo.max_completion_tokens=32",
    "grpo.prompts_per_step=2",
    "grpo.steps_per_rollout=2",
    "logging.checkpoint_every=1",
    "logging.samples_every=2",
    "memory.micro_batch=8",
    "optimizer.name=adamw_8bit",
    "optimizer.warmup_steps=3",
)
_NEVER_EQUAL = (*MEASURED, "seconds")
"""Time and memory, which no run repeats."""
_OPTIMIZER, _HAS_TIMES = "optimizer.pt", "trainer_state.json"
"""transformers' file names."""
_STEPS_A_KILL = 3
"""More steps than an attempt takes before it is killed: no attempt ends the run too soon."""
_POLL_S = 0.002
_IN_A_STEP, _AT_A_CHECKPOINT = "in a step", "while a checkpoint was written"
_LOADING, _AT_THE_END = "while it loaded", "in the final evaluation"
_LOADING_S, _STEP_S, _WRITING_S = 3.0, 0.3, 0.03
"""Approximate duration of these moments for the tiny model on one core; the kill comes at any time within."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: its moment, the last step with a row, and the step after which the next attempt continued."""

    moment: str
    step: int
    kept_step: int
    is_checkpoint_lost: bool
    """True if a checkpoint that was complete before the kill was not complete after it."""


@dataclass(frozen=True, slots=True)
class ResumeProof:
    """The result; `differences` is empty if both runs ended equal."""

    steps: int
    kills: tuple[Kill, ...]
    differences: tuple[str, ...]
    resume_seconds: tuple[float, ...]
    """For each attempt that resumed a checkpoint: time to check and read it, without loading the model."""
    seconds: float

    @property
    def is_exact(self) -> bool:
        return not self.differences and not any(kill.is_checkpoint_lost for kill in self.kills)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self) | {"is_exact": self.is_exact}


def verify_resume(kills: int, folder: Path, report: Report, seed: int = 0, settings: Sequence[str] = ()) -> ResumeProof:
    """Trains twice in `folder`, the second time with `kills` kills, and compares.

    `settings` override those of both runs. Raises what a run with them would, before one begins, and `TrainingError`
    if an attempt ends by itself.
    """
    began, steps = time.monotonic(), _STEPS_A_KILL * (kills + 1)
    composed = compose(settings, steps)
    check_settings(composed.config)
    start = _starter(composed)
    undisturbed, killed = RunDir(folder / "undisturbed"), RunDir(folder / "killed")
    report(f"the undisturbed run: {steps} steps")
    _join(start(undisturbed.path, is_first=True), undisturbed)
    report(f"  done after {time.monotonic() - began:.0f} s; now the same run, killed {kills} times")
    found = tuple(_kill(kills, steps, killed, start, report, random.Random(seed)))
    _join(start(killed.path, is_first=not found), killed)
    seconds = tuple(row["seconds"] for row in read_rows(killed.resumes))
    return ResumeProof(steps, found, tuple(differences(undisturbed, killed)), seconds, time.monotonic() - began)


def compose(settings: Sequence[str], steps: int) -> ResolvedConfig:
    """Returns the tiny run's configuration; `settings` override its own. Raises `ConfigError`."""
    given = read_assignments("--set", settings)
    if "grpo.steps" in given.values:
        raise ConfigError("grpo.steps cannot be set: it follows from the kills.", hint="Give --kills another number.")
    own = [f"grpo.steps={steps}"]
    own += [one for one in _SETTINGS if given.values.get("trainable.method") != "full" or "dropout" not in one]
    if given.values.get("trainable.select") in BY_GRADIENT:
        own.append("rewards.random=1")  # so few and short completions may all be wrong: nothing would be selected
    return resolve(preset="tiny-cpu", settings=own, flags=[given])


def _starter(composed: ResolvedConfig) -> Callable[..., BaseProcess]:
    """Returns the function that starts an attempt in a process of its own.

    On a CPU the processes are forked from a server that has loaded the training stack: one starts in a second instead
    of ten. CUDA does not survive a fork, so on a GPU each process loads the stack.
    """
    device = device_on(this_machine(), composed.config)
    prepare_process(composed.config, device)  # the processes inherit it
    if not device.is_gpu:  # not measured: a run that is killed before it has recorded them may choose others
        os.environ.setdefault(VARIABLE, "1")
    # A killed process leaves the semaphores of its progress bars to multiprocessing, which warns about them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    context = multiprocessing.get_context("spawn") if device.is_gpu else multiprocessing.get_context("forkserver")
    if not device.is_gpu:
        context.set_forkserver_preload(["unsloth", "lowmem_rl.checkpointing.resume", "lowmem_rl.entrypoints.train"])
        with _silent():
            forkserver.ensure_running()

    def start(out: Path, *, is_first: bool) -> BaseProcess:
        process = context.Process(target=_run_attempt, args=(out, composed, is_first), daemon=True)
        process.start()
        return process

    return start


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Lets processes started inside inherit closed streams: loading the stack prints banners."""
    saved = {stream: os.dup(stream) for stream in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in saved:
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, copy in saved.items():
            os.dup2(copy, stream)
        for file in (nowhere, *saved.values()):
            os.close(file)


def _run_attempt(out: Path, composed: ResolvedConfig, is_first: bool) -> None:
    """Runs the tiny training in `out` until its end, or until it is killed."""
    with _log(out).open("a", encoding="utf-8") as log:
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                import_unsloth()
                from lowmem_rl.checkpointing.resume_config import read_composed
                from lowmem_rl.entrypoints import train

            if is_first:
                train.run(composed, out, force=True)
            else:
                train.resume(read_composed(RunDir(out)), out, force=True)
        except BaseException:
            traceback.print_exc(file=log)
            raise


def _log(out: Path) -> Path:
    return out.with_suffix(".log")


def _join(process: BaseProcess, run_dir: RunDir) -> None:
    process.join()
    if process.exitcode:
        raise TrainingError(
            f"The tiny run ended by itself with exit code {process.exitcode}.", hint=f"See {_log(run_dir.path)}."
        )


def _kill(
    kills: int, steps: int, run_dir: RunDir, start: Callable[..., BaseProcess], report: Report, rng: random.Random
) -> Iterator[Kill]:
    """Kills attempts and yields the kills; the last attempt, which ends the run, is the caller's."""
    # A step first, the final evaluation last.
    moments = islice(cycle((_IN_A_STEP, _AT_A_CHECKPOINT, _IN_A_STEP, _AT_A_CHECKPOINT, _LOADING)), kills - 1)
    for number, moment in enumerate([*moments, _AT_THE_END], 1):
        has_begun, longest_s = _moment(moment, run_dir, steps)
        process = start(run_dir.path, is_first=not run_dir.config.exists())
        while process.is_alive() and not (run_dir.config.exists() and has_begun()):
            time.sleep(_POLL_S)
        time.sleep(rng.uniform(0, longest_s))
        before = _complete_step(run_dir)
        if not process.is_alive():
            _join(process, run_dir)
            raise TrainingError("The tiny run ended before it was killed.", hint="Another seed may kill it earlier.")
        process.kill()
        process.join()
        after = _complete_step(run_dir)
        kill = Kill(moment, _rows(run_dir), after, after < before)
        report(f"  kill {number} of {kills}: {moment}, at step {kill.step}; continues after step {after}")
        yield kill


def _moment(moment: str, run_dir: RunDir, steps: int) -> tuple[Callable[[], bool], float]:
    """Returns the function that returns whether a moment has begun, and how long it lasts, in seconds."""
    step, now_ns = _complete_step(run_dir), time.time_ns()
    return {
        _IN_A_STEP: (lambda: _rows(run_dir) > step + 1, _STEP_S),
        _AT_A_CHECKPOINT: (lambda: _is_writing(run_dir, now_ns), _WRITING_S),
        _LOADING: (lambda: True, _LOADING_S),
        _AT_THE_END: (run_dir.checkpoint(steps).exists, _WRITING_S),
    }[moment]


def _is_writing(run_dir: RunDir, since_ns: int) -> bool:
    """Returns whether a checkpoint is being written; the remains of an earlier kill do not count."""
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_ctime_ns > since_ns for path in run_dir.checkpoints.glob(".step-*.aside"))
    return False


def _rows(run_dir: RunDir) -> int:
    """Returns the last step that has a row."""
    return max((row["step"] for row in read_rows(run_dir.metrics)), default=0)


def _complete_step(run_dir: RunDir) -> int:
    """Returns the step of the newest complete checkpoint, 0 if there is none."""
    found = newest(run_dir, lambda text: None)
    return found.step if found else 0


def differences(one: RunDir, other: RunDir) -> Iterator[str]:
    """Yields the differences of two runs that should be equal: weights, states, rows, evaluations."""
    yield from _different_states(one, other)
    for name in ("order", "samples", "trainable"):
        paths = (getattr(one, name), getattr(other, name))
        first, second = (path.read_bytes() if path.exists() else b"" for path in paths)
        if first != second:
            yield f"{name}.jsonl"
    first_rows, second_rows = ([_without_time(row) for row in read_rows(run.metrics)] for run in (one, other))
    pairs = zip(first_rows, second_rows, strict=False)
    yield from (f"metrics.jsonl, row {number}: {a} and {b}" for number, (a, b) in enumerate(pairs, 1) if a != b)
    if len(first_rows) != len(second_rows):
        yield f"metrics.jsonl: {len(first_rows)} rows and {len(second_rows)}"
    if _without_time(read_json(one.evaluations)) != _without_time(read_json(other.evaluations)):
        yield "eval.json"
    items = {path.name for run in (one, other) for path in run.eval_items("before").parent.glob("*.jsonl")}
    for name in sorted(items):
        first, second = (run.eval_items("before").with_name(name) for run in (one, other))
        if not (first.exists() and second.exists()) or first.read_bytes() != second.read_bytes():
            yield f"eval/{name}"


def _different_states(one: RunDir, other: RunDir) -> Iterator[str]:
    """Compares the final adapters, and the last checkpoints' weights, optimizers, schedules and random states."""
    weights = "adapter_model.safetensors"
    if (one.adapter / weights).read_bytes() != (other.adapter / weights).read_bytes():
        yield f"adapter/{weights}"
    found = [newest(run, lambda text: None) for run in (one, other)]
    files = [read_json(checkpoint.path / "checkpoint.json")["files"] if checkpoint else {} for checkpoint in found]
    for name in sorted((files[0].keys() | files[1].keys()) - {_HAS_TIMES}):
        if files[0].get(name) != files[1].get(name) and not _have_equal_values(name, *found):
            yield f"the last checkpoint's {name}"


def _have_equal_values(name: str, *checkpoints: Checkpoint | None) -> bool:
    """Returns whether two files of optimizer states have equal values although their bytes differ.

    bitsandbytes' 8-bit states share a table of numbers, which is written once. On a card each state has its own table
    after it was loaded.
    """
    if name != _OPTIMIZER or None in checkpoints:
        return False
    import torch

    files = [one.path / name for one in checkpoints if one]
    return _equal(*(torch.load(file, map_location="cpu", weights_only=True) for file in files))


def _equal(one: Any, other: Any) -> bool:
    """Compares nested states, tensors by type and value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if hasattr(one, "dtype"):
        return bool(one.dtype == other.dtype and one.equal(other))
    return bool(one == other)


def _without_time(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_time(value) for key, value in found.items() if key not in _NEVER_EQUAL}
    return [_without_time(value) for value in found] if isinstance(found, list) else found
