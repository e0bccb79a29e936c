"""Where trials run: a protocol of three functions, and its first answer, processes on this machine."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lowmem_rl.experiment.node import end, start

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """A command line of `lowmem-rl`, whose output is appended to a log."""

    name: str
    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: its exit code, negative for a signal, and the machine; code None if the machine was lost."""

    name: str
    exit_code: int | None
    machine: str


class Launcher(Protocol):
    """Starts jobs, at most `jobs` at once."""

    jobs: int

    def start(self, job: Job) -> None:
        """Starts a job; the caller makes sure that fewer than `jobs` run."""

    def wait(self) -> Ended:
        """Returns the next job that has ended, once there is one."""

    def stop(self) -> None:
        """Lets every job save and end, and waits for it."""


class LocalLauncher:
    """Processes on this machine: one a GPU, in turn; without a GPU at most one a core."""

    def __init__(self, jobs: int, num_gpus: int) -> None:
        self.jobs = min(jobs, num_gpus or os.cpu_count() or 1)
        self._running: dict[str, tuple[subprocess.Popen[bytes], str | None]] = {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(num_gpus)]
        self._gpus: list[str] = names[: self.jobs] if num_gpus else []

    def start(self, job: Job) -> None:
        """Starts a job, on a free GPU if there are any."""
        gpu = self._gpus.pop(0) if self._gpus else None
        env = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        self._running[job.name] = start(job.arguments, job.log, env), gpu

    def wait(self) -> Ended:
        """Polls: no call waits for one of several processes that are in sessions of their own."""
        while True:
            for name, (process, gpu) in self._running.items():
                if process.poll() is not None:
                    del self._running[name]
                    self._gpus += [gpu] if gpu else []
                    return Ended(name, process.returncode, socket.gethostname())
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Lets every process save and end."""
        for process, _ in self._running.values():
            end(process, 0.0) if process.poll() is not None else process.terminate()
        for process, _ in self._running.values():
            end(process)
        self._running.clear()
