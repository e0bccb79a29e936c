"""The process in which a user's reward is tried: it says what it scores before it does, and at last what it found.

Trials come pickled on stdin, reports leave as JSON lines on what was stdout; what the user's code prints is talk.
"""

import json
import os
import pickle
import signal
import sys
from dataclasses import asdict, replace
from typing import IO, Any

from lowmem_rl.errors import LowMemError
from lowmem_rl.example import Example
from lowmem_rl.rewards.apart import UNREADABLE
from lowmem_rl.rewards.base import Reward
from lowmem_rl.rewards.check import check_reward
from lowmem_rl.rewards.finding import Finding
from lowmem_rl.rewards.registry import load_reward
from lowmem_rl.rewards.trials import Trial

SHOWN = 80
"""Characters of a completion."""


def main() -> None:
    """Checks one reward. Exits with `UNREADABLE` where the trials hold objects of modules that are not here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        source, trials, prefill = pickle.load(sys.stdin.buffer)  # our own parent wrote it
    except Exception:  # noqa: BLE001 - whatever an object's own class raises
        sys.exit(UNREADABLE)
    _report(reports, findings=[asdict(finding) for finding in _check(source, trials, prefill, reports)])


def _check(source: str, trials: tuple[Trial, ...], prefill: str, reports: IO[str]) -> list[Finding]:
    try:
        reward = load_reward(source)
    except LowMemError as error:
        return [Finding(source, "fails", f"cannot be loaded again: {error}".rstrip("."), error.hint)]
    return check_reward(_announced(reward, reports), trials, prefill)


def _announced(reward: Reward, reports: IO[str]) -> Reward:
    """Returns the same reward, which says what it is about to score and is no longer a file's."""

    def score(completion: str, example: Example) -> float | None:
        _report(reports, example=example.id, completion=completion[:SHOWN])
        return reward.score(completion, example)

    return replace(reward, score=score, source="")


def _report(reports: IO[str], **message: Any) -> None:
    reports.write(json.dumps(message) + "\n")
    reports.flush()


if __name__ == "__main__":
    main()
