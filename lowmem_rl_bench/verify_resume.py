"""Proof that a run goes on exactly: a tiny training is killed again and again, and ends like one that never was.

The kills are SIGKILLs at random moments: while the model loads, in the midst of a step, while a checkpoint is being
written, and in the final evaluation. Its configuration holds what is hard to go on with: rollouts that two steps
share, a moving curriculum, dropout, a schedule with a warm-up, 8-bit optimizer states.
"""

import contextlib
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import Checkpoint, newest
from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import prepare_process
from lowmem_rl.errors import TrainingError
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from lowmem_rl.telemetry.metrics import MEASURED

SETTINGS = (
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
CHANGES_BY_ITSELF = (*MEASURED, "seconds")
"""Time and memory, which no run repeats."""
OPTIMIZER, TELLS_THE_TIME = "optimizer.pt", "trainer_state.json"
"""transformers' names."""
STEPS_A_KILL = 3
"""More steps than a life takes before it is killed: none ends the run too soon."""
LOOK_S = 0.002
IN_A_STEP, AT_A_CHECKPOINT = "in a step", "while a checkpoint was written"
LOADING, AT_THE_END = "while it loaded", "in the final evaluation"
LOADING_S, STEP_S, WRITING_S = 3.0, 0.3, 0.03
"""About what these moments take, for the tiny model on one core; the kill comes at any time within."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: when it came, how many steps had a row then, and behind which step the next life went on."""

    moment: str
    step: int
    kept_step: int
    is_checkpoint_lost: bool
    """True if a checkpoint that stood there was no longer whole."""


@dataclass(frozen=True, slots=True)
class ResumeProof:
    """What came out; `differences` is empty where both runs ended alike."""

    steps: int
    kills: tuple[Kill, ...]
    differences: tuple[str, ...]
    resume_seconds: tuple[float, ...]
    """Of each life that went on behind a checkpoint: checking and reading it, beyond loading the model."""
    seconds: float

    @property
    def is_exact(self) -> bool:
        return not self.differences and not any(kill.is_checkpoint_lost for kill in self.kills)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self) | {"is_exact": self.is_exact}


def verify_resume(kills: int, folder: Path, tell: Tell, seed: int = 0) -> ResumeProof:
    """Trains twice in `folder`, the second time killed `kills` times, and compares. Raises `TrainingError`."""
    began, steps = time.monotonic(), STEPS_A_KILL * (kills + 1)
    start = _starter((*SETTINGS, f"grpo.steps={steps}"))
    undisturbed, killed = RunDir(folder / "undisturbed"), RunDir(folder / "killed")
    tell(f"the undisturbed run: {steps} steps")
    _end(start(undisturbed.path, is_first=True))
    tell(f"  done after {time.monotonic() - began:.0f} s; now the same run, killed {kills} times")
    found = tuple(_killed(kills, steps, killed, start, tell, random.Random(seed)))
    _end(start(killed.path, is_first=not found))
    seconds = tuple(row["seconds"] for row in read_rows(killed.resumes))
    return ResumeProof(steps, found, tuple(differences(undisturbed, killed)), seconds, time.monotonic() - began)


def _starter(settings: tuple[str, ...]) -> Callable[..., BaseProcess]:
    """Returns what starts a life."""
    config = resolve(preset="tiny-cpu", settings=settings).config
    device = device_on(this_machine(), config)
    prepare_process(config, device)  # the processes inherit it
    # A killed process leaves the semaphores of its progress bars to multiprocessing, which tells of them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    # CUDA does not survive a fork: there each life loads the stack anew.
    context = multiprocessing.get_context("spawn") if device.is_gpu else multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lowmem_rl_bench.verify_resume_worker"])

    def start(out: Path, *, is_first: bool) -> BaseProcess:
        process = context.Process(target=_live, args=(out, settings), kwargs={"is_first": is_first}, daemon=True)
        process.start()
        return process

    return start


def _live(out: Path, settings: tuple[str, ...], *, is_first: bool) -> None:
    from lowmem_rl_bench.verify_resume_worker import run_attempt  # loads the stack, which this process is to do without

    run_attempt(out, settings, is_first=is_first)


def _end(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise TrainingError(f"The tiny run ended by itself with exit code {process.exitcode}.")


def _killed(
    kills: int, steps: int, run_dir: RunDir, start: Callable[..., BaseProcess], tell: Tell, rng: random.Random
) -> Iterator[Kill]:
    """Yields the kills of a run that is then still to be ended."""
    for number, moment in enumerate(_moments(kills), 1):
        has_come = _has_come(moment, run_dir, steps, rng)
        process = start(run_dir.path, is_first=not run_dir.config.exists())
        while process.is_alive() and not (run_dir.config.exists() and has_come()):
            time.sleep(LOOK_S)
        stood = _whole_step(run_dir)
        if not process.is_alive():
            _end(process)
            raise TrainingError("The tiny run ended before it was killed.")
        process.kill()
        process.join()
        kept = _whole_step(run_dir)
        kill = Kill(moment, _rows(run_dir), kept, kept < stood)
        tell(f"  kill {number} of {kills}: {moment}, at step {kill.step}; goes on behind step {kept}")
        yield kill


def _moments(kills: int) -> list[str]:
    """Returns at which moments to kill: a step first, the final evaluation last."""
    return [*islice(cycle((IN_A_STEP, AT_A_CHECKPOINT, IN_A_STEP, AT_A_CHECKPOINT, LOADING)), kills - 1), AT_THE_END][
        -kills:
    ]


def _has_come(moment: str, run_dir: RunDir, steps: int, rng: random.Random) -> Callable[[], bool]:
    """Returns what says that a moment has come; it is another one each time."""
    kept = _whole_step(run_dir)
    if moment == AT_A_CHECKPOINT:
        return partial(_later, rng.uniform(0, WRITING_S), partial(_is_writing, run_dir, time.time_ns()))
    if moment == LOADING:
        return partial(_later, rng.uniform(0, LOADING_S), lambda: True)
    if moment == AT_THE_END:
        return partial(_later, rng.uniform(0, WRITING_S), run_dir.checkpoint(steps).exists)
    return partial(_later, rng.uniform(0, STEP_S), lambda: _rows(run_dir) > kept + 1)


def _later(seconds: float, has_begun: Callable[[], bool]) -> bool:
    """Says whether something has begun, and lets it go on for a while then."""
    if not has_begun():
        return False
    time.sleep(seconds)
    return True


def _is_writing(run_dir: RunDir, since_ns: int) -> bool:
    """Says whether a checkpoint is being written; one that an earlier kill tore off is not."""
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_ctime_ns > since_ns for path in run_dir.checkpoints.glob(".step-*.aside"))
    return False


def _rows(run_dir: RunDir) -> int:
    """Returns the last step that has a row."""
    return max((row["step"] for row in read_rows(run_dir.metrics)), default=0)


def _whole_step(run_dir: RunDir) -> int:
    """Returns the step of the newest checkpoint, which must be whole, 0 where there is none."""
    found = newest(run_dir, lambda text: None)
    return found.step if found else 0


def differences(one: RunDir, other: RunDir) -> Iterator[str]:
    """Yields what two runs that should be one differ in: weights, states, rows, evaluations."""
    yield from _different_states(one, other)
    for name in ("order", "samples"):
        if getattr(one, name).read_bytes() != getattr(other, name).read_bytes():
            yield f"{name}.jsonl"
    pairs = zip(_steady(one), _steady(other), strict=False)
    yield from (f"metrics.jsonl, row {number}: {a} and {b}" for number, (a, b) in enumerate(pairs, 1) if a != b)
    if len(_steady(one)) != len(_steady(other)):
        yield f"metrics.jsonl: {len(_steady(one))} rows and {len(_steady(other))}"
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
    for name in sorted((files[0].keys() | files[1].keys()) - {TELLS_THE_TIME}):
        if files[0].get(name) != files[1].get(name) and not _hold_the_same(name, *found):
            yield f"the last checkpoint's {name}"


def _hold_the_same(name: str, *checkpoints: Checkpoint | None) -> bool:
    """Says whether two files of optimizer states hold equal values in other bytes.

    bitsandbytes' 8-bit states share a table of numbers, which is written once. On a card each has a table of its own
    after it was read back.
    """
    if name != OPTIMIZER or None in checkpoints:
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


def _steady(run_dir: RunDir) -> list[dict[str, Any]]:
    return [_without_time(row) for row in read_rows(run_dir.metrics)]


def _without_time(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_time(value) for key, value in found.items() if key not in CHANGES_BY_ITSELF}
    return [_without_time(value) for value in found] if isinstance(found, list) else found
