"""Checks a reward of a user's file in a process of its own, which is killed where one score takes too long.

A reward that hangs may hold the interpreter's lock, in a regular expression or in C: no thread of this process would
get a turn, and a signal only on the main thread.
"""

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

from lowmem_rl.rewards.finding import Finding
from lowmem_rl.rewards.trials import Trial

LIMIT_S = 20.0
"""For one score. The first may have to load something: our symbolic workers take 2 s, on a busy machine 6."""

UNREADABLE = 3
"""The exit code of a worker that cannot read its trials."""


def check_apart(source: str, name: str, trials: Sequence[Trial], prefill: str, limit_s: float) -> list[Finding] | None:
    """Returns what is wrong with the reward `source`, `FILE.py:NAME`, which findings call `name`.

    None where the trials cannot be handed over: a user's own task may put anything into its examples.
    """
    try:
        request = pickle.dumps((source, tuple(trials), prefill))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    command = [sys.executable, "-P", "-m", "lowmem_rl.rewards.apart_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        with suppress(BrokenPipeError), worker.stdin as sink:
            sink.write(request)
        watch = Watch(worker, limit_s)
        tried = None
        for message in watch.messages(worker.stdout):
            if "findings" in message:
                return [Finding(**(finding | {"reward": name})) for finding in message["findings"]]
            tried = message
        worker.wait()
        if tried is None and worker.returncode == UNREADABLE:
            return None
        return [_ended(name, tried, worker.returncode, watch)]


class Watch:
    """Reads what a worker reports, and kills it where it reports nothing for too long while it scores."""

    def __init__(self, worker: "subprocess.Popen[bytes]", limit_s: float) -> None:
        self.worker = worker
        self.limit_s = limit_s
        self.is_late = False

    def messages(self, reports: IO[bytes]) -> Iterator[dict[str, Any]]:
        """Yields one message a line. Time is counted from the first: importing the user's file is not limited."""
        line = reports.readline()
        while line:
            yield json.loads(line)
            timer = threading.Timer(self.limit_s, self._kill)
            timer.start()
            try:
                line = reports.readline()
            finally:
                timer.cancel()

    def _kill(self) -> None:
        self.is_late = True
        self.worker.kill()


def _ended(name: str, tried: dict[str, Any] | None, code: int, watch: Watch) -> Finding:
    """Returns the finding on a worker that ended before it had one."""
    last = f" (example {tried['example']!r}, completion {tried['completion']!r})" if tried else ""
    if watch.is_late:
        what = f"takes longer than {watch.limit_s:g} s for one completion{last}"
        return Finding(name, "hangs", what, "Bound its work: no open-ended pattern, search or evaluation of a text.")
    hint = "Keep it from ending its process: it would end the run."
    return Finding(name, "fails", f"ended the process that tried it, with exit code {code}{last}", hint)
