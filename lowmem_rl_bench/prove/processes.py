"""The processes of a check on a card: each has a log, none runs longer than the check may, none is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.errors import LowMemError

ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout; the folder of all packages if this one is installed without one."""
LAST_LINES = 6
POLL_S = 0.002


class Failed(Exception):
    """A check or a part did not do what it should. The text has no path of this machine."""

    def __init__(self, what: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(what)
        self.found = found
        """The results so far."""


class TookTooLong(Failed):
    """A process was ended because its time was up."""


@dataclass(frozen=True)
class Site:
    """A folder for the files of a run, and the time at which its processes must end."""

    folder: Path
    end: float
    """By `time.monotonic`."""

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def until(self, seconds: float) -> Site:
        """Returns the site for a part that may take so long, within the total time."""
        return replace(self, end=min(self.end, time.monotonic() + seconds))

    def lowmem(self, name: str, *arguments: str) -> str:
        """Runs a lowmem-rl command with a log of this name; returns its standard output.

        Raises `Failed` if it does not end with 0.
        """
        return self.python(name, "lowmem_rl_cli", *arguments)

    def child(self, module: str, order: Mapping[str, Any], name: str = "") -> Any:
        """Runs a module that calls `serve`, with an order; returns its answer.

        Raises `Failed` with the part of the answer that exists.
        """
        name = name or module.rpartition(".")[2]
        ordered, answer = (self.folder / f"{name}.{kind}.json" for kind in ("order", "answer"))
        ordered.write_text(json.dumps(order), encoding="utf-8")
        answer.unlink(missing_ok=True)
        try:
            self.python(name, module, str(ordered), str(answer))
        except Failed as error:
            error.found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
            raise
        return json.loads(answer.read_text(encoding="utf-8"))

    def python(self, name: str, *module: str) -> str:
        """Runs `python -m`; returns its standard output. Raises `Failed`."""
        with self.started(name, *module) as process:
            self._wait(name, process)
            if process.returncode:
                raise Failed(f"{name} ended with {process.returncode}. Its last lines:\n{self.last_lines(name)}")
        return self._output(name).read_text(encoding="utf-8", errors="replace")

    def killed(self, name: str, is_time: Callable[[], bool], *module: str) -> None:
        """Runs `python -m` and kills it when `is_time` returns True. Raises `Failed` if it ends before."""
        with self.started(name, *module) as process:
            while not is_time():
                if process.poll() is not None:
                    raise Failed(f"{name} ended with {process.returncode} before it was killed.")
                if self.seconds_left < 0:
                    raise TookTooLong(f"{name} was not killed: its moment did not come in time.")
                time.sleep(POLL_S)

    @contextmanager
    def started(self, name: str, *module: str) -> Iterator[subprocess.Popen[bytes]]:
        """Yields a process in its own process group, which is killed at the end."""
        with self._output(name).open("wb") as output, self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *module],  # -P: no file of the working directory hides a module
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        try:
            process.wait(timeout=max(self.seconds_left, 0))
        except subprocess.TimeoutExpired as error:
            seconds = time.monotonic() - began
            reason = f"{name} was ended after {seconds:.0f} s. Its last lines:\n{self.last_lines(name)}"
            raise TookTooLong(reason) from error

    def _environment(self) -> dict[str, str]:
        """Returns an offline environment with caches in the scratch folder: a measurement must not change the user's
        predictions. The hub's cache stays where it is. Cards have NVML's numbers (CUDA C++ Programming Guide,
        CUDA_DEVICE_ORDER)."""
        from huggingface_hub import constants

        checkout = [str(ROOT), str(ROOT / "cli")] if (ROOT / "pyproject.toml").is_file() else []
        paths = [*checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
        return (
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
            | os.environ
            | {
                "PYTHONPATH": os.pathsep.join(paths),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                "HF_HOME": constants.HF_HOME,
                "HF_HUB_OFFLINE": "1",
                "UNSLOTH_DISABLE_STATISTICS": "1",
            }
        )

    def _output(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """Returns the last lines of a process on standard error."""
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(self.without_paths(line)[:300] for line in lines[-LAST_LINES:])

    def without_paths(self, text: str) -> str:
        """Returns a text without this machine's paths."""
        places = {str(self.folder): "SCRATCH", str(ROOT): ".", sys.prefix: "PYTHON", str(Path.home()): "~"}
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, places[place])
        return text


def serve(work: Callable[[Mapping[str, Any]], Any]) -> None:
    """Reads the order from the first file and writes the answer to the second. NaN is an answer, too.

    `work` returns the answer, or yields it repeatedly as it grows.
    """
    order, answer = map(Path, sys.argv[1:])
    try:
        found = work(json.loads(order.read_text(encoding="utf-8")))
        for text in map(json.dumps, found if isinstance(found, Iterator) else [found]):
            new = answer.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(answer)
    except LowMemError as error:  # its last lines are those that a user needs
        sys.exit(f"{error}\n{error.hint}".strip())


def exit_on_signals() -> None:
    """Makes signals exit, so that processes and files are removed; a lost terminal sends SIGHUP.

    An ignored signal, as under nohup, stays ignored.
    """
    signals = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]

    def leave(number: int, frame: object) -> None:
        for later in signals:
            signal.signal(later, signal.SIG_IGN)  # a second one would interrupt the removal
        sys.exit(128 + number)

    for number in signals:
        signal.signal(number, leave)
