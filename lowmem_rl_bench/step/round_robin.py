"""The arms as processes that take turns: while one computes, the others wait."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import LowMemError, SetupError
from lowmem_rl_bench.step.arm_worker import ArmTask
from lowmem_rl_bench.step.arms import Arm

Step = dict[str, Any]
"""What `clock.StepClock.read` tells."""
Weights = Mapping[str, numpy.ndarray]

Until = Callable[[Sequence[Step]], bool]
"""Says of an arm's steps so far whether they are enough."""

ANSWER_WITHIN_S = 900.0
"""A step or a load that takes longer is taken for stuck."""
LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class ArmResult:
    """A task as an arm left it."""

    steps: tuple[Step, ...]
    peak_bytes: int
    engine: dict[str, Any]
    gradients: Weights
    """Of the first step, before clipping; empty for a live task."""
    weights: Weights


class ArmProcess:
    """An arm that is alive. Every method raises `LowMemError` with its last lines where it has died."""

    def __init__(self, arm: Arm, config: RunConfig, device: Device, folder: Path) -> None:
        self.arm = arm
        self.log = folder / f"{arm.name}.log"
        environment = os.environ | ({} if device.is_gpu else {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lowmem_rl_bench.step.arm_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.send({"arm": arm.name, "config": config.model_dump(mode="json"), "device": asdict(device)})

    def send(self, order: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._dead() from error

    def answer(self) -> dict[str, Any]:
        """Returns the answer to the last order: there is never more than one in the pipe."""
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], ANSWER_WITHIN_S)
        if not ready:
            raise self._failure(f"has not answered for {ANSWER_WITHIN_S:.0f} s")
        line = stream.readline()
        if not line:
            raise self._dead()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = SetupError if answer["exit_code"] == SetupError.exit_code else LowMemError
            raise kind(f"Arm {self.arm.name}: {answer['error']}", hint=answer["hint"])
        return answer

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.send(order)
        return self.answer()

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # an order that nobody read
                stream.close()

    def _dead(self) -> LowMemError:
        return self._failure(f"ended with code {self.process.wait()}")

    def _failure(self, what: str) -> LowMemError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "".join(f"\n  {line}" for line in lines[-LAST_LINES:])
        return LowMemError(
            f"Arm {self.arm.name} {what}. It said last:{said}",
            hint="Run `lowmem-rl doctor`, and see that memory is free.",
        )


@contextmanager
def alive(arms: Sequence[Arm], config: RunConfig, device: Device, folder: Path) -> Iterator[dict[str, ArmProcess]]:
    """Yields a loaded process for each arm, by name; all are ended at the end."""
    with ExitStack() as stack:
        processes = {}
        for arm in arms:  # loading is not measured: side by side
            processes[arm.name] = process = ArmProcess(arm, config, device, folder)
            stack.callback(process.close)
        for process in processes.values():
            process.answer()
        yield processes


def take_turns(
    processes: Mapping[str, ArmProcess], tasks: Mapping[str, ArmTask], most_steps: int, *, until: Until | None = None
) -> dict[str, ArmResult]:
    """Lets every process train its task in turns, a step each: A B C, A B C, ...; returns what they did, by name.

    `until` sees an arm's steps so far and may end it early.
    """
    steps: dict[str, list[Step]] = {name: [] for name in tasks}
    going = dict(tasks)
    for name, task in tasks.items():
        processes[name].ask({"begin": asdict(task)})
    ended = {}
    for number in range(most_steps):
        for name in list(going):
            steps[name].append(processes[name].ask({"step": number}))
            if number == most_steps - 1 or (until is not None and until(steps[name])):
                ended[name] = _end(processes[name], going.pop(name), steps[name])
    return {name: ended[name] for name in tasks}


def _end(process: ArmProcess, task: ArmTask, steps: list[Step]) -> ArmResult:
    said = process.ask({"end": True})
    gradients = _read(Path(f"{task.out}.gradients.npz"))
    return ArmResult(
        tuple(steps), said["peak_bytes"], said["engine"], gradients, _read(Path(f"{task.out}.weights.npz"))
    )


def _read(path: Path) -> Weights:
    if not path.exists():
        return {}
    with numpy.load(path) as found:
        return dict(found)
