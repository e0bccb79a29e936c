"""Scores with the rewards of a user's file in processes of their own, killed where one score takes too long.

A reward that hangs may hold the interpreter's lock, in a regular expression or in C: no thread of this process would
get a turn, and a signal only on the main thread.
"""

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import Reward, RewardFailed, RewardSet, failure

LIMIT_S = 20.0
"""For one score. The first may have to load something: our symbolic workers take 2 s, on a busy machine 6."""


@contextmanager
def isolated(rewards: RewardSet, limit_s: float = LIMIT_S) -> Iterator[RewardSet]:
    """Yields the same rewards, those of a user's file each in a process of its own, which ends with the block."""
    with ExitStack() as ends:
        yield replace(rewards, rewards=tuple(_apart(reward, limit_s, ends) for reward in rewards.rewards))


def _apart(reward: Reward, limit_s: float, ends: ExitStack) -> Reward:
    if not reward.source or isinstance(reward, ModelReward):
        return reward
    process = RewardWorker(reward, limit_s)
    ends.callback(process.end)
    return replace(reward, score=process.score, source="")


class RewardWorker:
    """The process of one reward, for one score at a time. The first score starts it, also after it has ended."""

    def __init__(self, reward: Reward, limit_s: float) -> None:
        self.reward = reward
        self.limit_s = limit_s
        self.is_late = False
        self._worker: subprocess.Popen[bytes] | None = None

    def score(self, completion: str, example: Example) -> float | None:
        """Returns the score. Raises `RewardFailed` where there is none, late ones included.

        What cannot be handed over is scored here: a user's own task may put anything into its examples.
        """
        is_main = threading.current_thread() is threading.main_thread()
        try:
            request = pickle.dumps((completion, example, is_main)).hex()
        except (pickle.PicklingError, AttributeError, TypeError):
            return self.reward.score(completion, example)
        report = self._ask(request)
        if "score" in report:
            score: float | None = report["score"]
            return score
        if "unreadable" in report:
            return self.reward.score(completion, example)
        if "failed" in report:
            raise RewardFailed(report["failed"], hint=report["hint"])
        raise self._ended(completion, example)

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
        self._worker = None

    def _ask(self, request: str) -> dict[str, Any]:
        """Returns the worker's report, an empty one where it ended or was killed over the request."""
        if self._worker is None and (report := self._start()) != READY:
            return report
        assert self._worker is not None
        assert self._worker.stdin is not None
        timer = threading.Timer(self.limit_s, self._kill_late)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                self._worker.stdin.write(f"{request}\n".encode())
                self._worker.stdin.flush()
            return _read_report(self._worker)
        finally:
            timer.cancel()

    def _start(self) -> dict[str, Any]:
        """Returns the worker's first report. Importing the user's file may take its time."""
        self.is_late = False
        command = [
            sys.executable,
            "-P",
            "-m",
            "lowmem_rl.rewards.isolated_worker",
            self.reward.source,
            self.reward.name,
        ]
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return _read_report(self._worker)

    def _kill_late(self) -> None:
        self.is_late = True
        if self._worker is not None:
            self._worker.kill()

    def _ended(self, completion: str, example: Example) -> RewardFailed:
        """Buries the worker, and returns what is to be told of its end."""
        code = self._worker.wait() if self._worker else None
        self.end()
        if self.is_late:
            what = f"takes longer than {self.limit_s:g} s for one completion"
            hint = "Bound its work: no open-ended pattern, search or evaluation of a text."
            return failure(self.reward, completion, example, what, hint, fault="hangs")
        what = f"ended the process that tried it, with exit code {code}"
        return failure(self.reward, completion, example, what, "Keep it from ending its process: it would end the run.")


READY = {"ready": True}


def _read_report(worker: "subprocess.Popen[bytes]") -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    report: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return report
