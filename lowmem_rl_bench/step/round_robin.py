"""The arms as processes in turns: while one computes, the others wait."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl.workers import JsonWorker, RequestFailed, WorkerFailed
from lowmem_rl_bench.step.arms import Arm, ArmTask
from lowmem_rl_bench.step.progress import Progress

Step = dict[str, Any]
"""What `ArmTimer.read` returns."""
Weights = Mapping[str, numpy.ndarray]

Until = Callable[[Sequence[Step]], bool]
"""Returns whether an arm's steps so far are enough."""

_STEP_TIMEOUT_S = 900.0
"""For a step, or for loading; what takes longer is stuck."""
_LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What an arm did for a task."""

    steps: tuple[Step, ...]
    peak_bytes: int
    engine: dict[str, Any]
    gradients: Weights
    """Of the first step, before clipping; empty for a live task."""
    weights: Weights


class ArmProcess:
    """An arm in a process of its own."""

    def __init__(self, arm: Arm, config: RunConfig, device: Device, folder: Path) -> None:
        self.arm = arm
        on_cpu = {} if device.is_gpu else {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        log = folder / f"{arm.name}.log"
        self.worker = JsonWorker("lowmem_rl_bench.step.arm_worker", log, os.environ | on_cpu)
        self.worker.send({"arm": arm.name, "config": config.model_dump(mode="json"), "device": asdict(device)})

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and returns its answer. Raises what `answer` raises."""
        self.worker.send(request)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Returns the answer to the last request. Raises `LowMemError`, with the arm's last lines if it ended."""
        try:
            answer: dict[str, Any] = self.worker.receive(_STEP_TIMEOUT_S)
            return answer
        except RequestFailed as error:
            kind = SetupError if error.code == SetupError.exit_code else LowMemError
            raise kind(f"Arm {self.arm.name}: {error}", hint=error.hint) from error
        except WorkerFailed as error:
            lines = "".join(f"\n  {line}" for line in self.worker.last_lines(_LAST_LINES))
            raise LowMemError(
                f"Arm {self.arm.name}: {error} It said last:{lines}",
                hint="Run `lowmem-rl doctor`, and see that memory is free.",
            ) from error


@contextmanager
def alive(arms: Sequence[Arm], config: RunConfig, device: Device, folder: Path) -> Iterator[dict[str, ArmProcess]]:
    """Yields a loaded process for each arm, by name, and ends them. Raises what `ArmProcess.answer` raises."""
    with ExitStack() as stack:
        processes = {}
        for arm in arms:  # they load at the same time: loading is not measured
            processes[arm.name] = process = ArmProcess(arm, config, device, folder)
            stack.callback(process.worker.kill)
        for process in processes.values():
            process.answer()
        yield processes


def take_turns(
    processes: Mapping[str, ArmProcess],
    tasks: Mapping[str, ArmTask],
    most_steps: int,
    *,
    until: Until | None = None,
    progress: Progress | None = None,
    profiled: int = 0,
) -> dict[str, ArmResult]:
    """Trains every process's task in turns, a step each: A B C, A B C, ...; returns the results by name.

    `until` may end an arm early, given its steps so far. The last `profiled` steps run under a profiler.
    """
    steps: dict[str, list[Step]] = {name: [] for name in tasks}
    running = dict(tasks)
    for name, task in tasks.items():
        processes[name].ask({"begin": asdict(task)})
    ended = {}
    for number in range(most_steps):
        for name in list(running):
            if progress is not None:
                progress.before(name, number)
            order = {"step": number, "is_profiled": number >= most_steps - profiled}
            steps[name].append(processes[name].ask(order))
            if progress is not None:
                progress.after(name, steps[name][-1]["wall"])
            if number == most_steps - 1 or (until is not None and until(steps[name])):
                ended[name] = _end(processes[name], running.pop(name), steps[name])
    return {name: ended[name] for name in tasks}


def _end(process: ArmProcess, task: ArmTask, steps: list[Step]) -> ArmResult:
    last = process.ask({"end": True})
    gradients, weights = (_read(Path(f"{task.out}.{kind}.npz")) for kind in ("gradients", "weights"))
    return ArmResult(tuple(steps), last["peak_bytes"], last["engine"], gradients, weights)


def _read(path: Path) -> Weights:
    if not path.exists():
        return {}
    with numpy.load(path) as found:
        return dict(found)
