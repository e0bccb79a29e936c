"""The process of a user's reward: it scores what it is sent until there is no more.

Requests come on what was stdin, pickled and in hexadecimal, one a line; reports leave as JSON lines on what was stdout.
What the user's code prints is talk, and there is nothing for it to read.
"""

import json
import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import IO, Any

from lowmem_rl.errors import LowMemError, RewardError
from lowmem_rl.rewards.isolated import READY
from lowmem_rl.rewards.reward import Reward, score_with
from lowmem_rl.rewards.reward_registry import load_reward


def main() -> None:
    """Serves the reward whose source and name are the arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    requests, reports = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    source, name = sys.argv[1:]
    try:
        reward = replace(load_reward(source), name=name)
    except LowMemError as error:
        what = f"Reward {name!r} cannot be loaded again: {str(error).rstrip('.')}."
        _report(reports, {"failed": what, "hint": error.hint})
        return
    _report(reports, READY)
    for request in requests:
        _report(reports, _scored(reward, request))


def _scored(reward: Reward, request: bytes) -> dict[str, Any]:
    try:
        completion, example, is_main = pickle.loads(bytes.fromhex(request.decode()))  # our own parent wrote it
    except Exception:  # noqa: BLE001 - whatever an object's own class raises, and modules that are not here
        return {"unreadable": True}
    score = partial(score_with, reward, completion, example)
    try:
        return {"score": score() if is_main else _on_another_thread(score)}
    except RewardError as error:
        return {"failed": str(error), "hint": error.hint}


def _on_another_thread(score: "partial[float | None]") -> float | None:
    """Where a reward is asked off the main thread, it is scored off the main thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(score).result()


def _report(reports: IO[str], report: dict[str, Any]) -> None:
    reports.write(json.dumps(report) + "\n")
    reports.flush()


if __name__ == "__main__":
    main()
