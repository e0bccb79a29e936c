"""Where trials run: a protocol of three functions, and its first answer, processes on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_POLL_S = 0.2
_STOP_S = 120.0
"""For a run that saves what it has: a step is abandoned, writing a checkpoint takes seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command line of `lowmem-rl`, whose output is appended to a log."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "lowmem_rl", *self.arguments]


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
        """Starts a job; the caller has seen to it that fewer than `jobs` run."""

    def wait(self) -> Ended:
        """Returns the next job that has ended, once there is one."""

    def stop(self) -> None:
        """Lets every job save and end, and waits for it."""


class LocalLauncher:
    """Processes on this machine: one a GPU, in turn; without a GPU `jobs` share the CPU."""

    def __init__(self, jobs: int, num_gpus: int) -> None:
        self.jobs = min(jobs, num_gpus) if num_gpus else jobs
        self._running: dict[str, tuple[subprocess.Popen[bytes], str | None]] = {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(num_gpus)]
        self._gpus: list[str] = names[: self.jobs] if num_gpus else []

    def start(self, job: Job) -> None:
        """Starts a job on a free GPU, in a session of its own: Ctrl-C reaches it only through `stop`."""
        gpu = self._gpus.pop(0) if self._gpus else None
        env = {**os.environ, **job.env} | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                job.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self._running[job.name] = process, gpu

    def wait(self) -> Ended:
        """Polls: a process of another session sends no signal that one could wait for with others."""
        while True:
            for name, (process, gpu) in self._running.items():
                if process.poll() is not None:
                    del self._running[name]
                    self._gpus += [gpu] if gpu else []
                    return Ended(name, process.returncode, socket.gethostname())
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Asks each process to save and end; kills what is still there after two minutes."""
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _STOP_S
        for process, _ in self._running.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
