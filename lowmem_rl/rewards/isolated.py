"""Scores with the rewards of a user's file in processes of their own, which are killed if one score takes too long.

A reward that hangs may hold the interpreter's lock, in a regular expression or in C: no thread of this process would
run, and a signal handler needs the main thread.
"""

import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import Reward, RewardFailed, RewardSet, Rollout, failure, try_all
from lowmem_rl.workers import JsonWorker, RequestFailed, WorkerFailed

LIMIT_S = 20.0
"""For one score. The first may have to load something: our symbolic workers take 2 s, on a busy machine 6."""

_BATCH_SHARE = 20.0
"""Further completions of a batch for which a call may take as long again: it may ask another model about each."""


@contextmanager
def isolated(rewards: RewardSet, limit_s: float = LIMIT_S, log: Path | None = None) -> Iterator[RewardSet]:
    """Yields the same rewards, those of a user's file each in a process of its own, which ends with the block.

    What they print goes to `log`, or to standard error.
    """
    with ExitStack() as stack:

        def isolate(reward: Reward) -> Reward:
            if not reward.source or isinstance(reward, ModelReward):
                return reward
            worker = _RewardWorker(reward, limit_s, log)
            stack.callback(worker.end)
            score_batch = worker.score_batch if reward.score_batch else None
            return replace(reward, score=worker.score, score_batch=score_batch, source="")

        yield replace(rewards, rewards=tuple(map(isolate, rewards.rewards)))


class _RewardWorker:
    """The process of one reward, for one call at a time. The first call starts it, also after it has ended."""

    def __init__(self, reward: Reward, limit_s: float, log: Path | None) -> None:
        self.reward, self.limit_s, self.log = reward, limit_s, log
        self._worker: JsonWorker | None = None

    def score(self, completion: str, example: Example) -> float | None:
        """Returns the score. Raises `RewardFailed` if there is none, also if it comes too late."""
        (score,) = self.score_batch(Rollout([completion], [example]))
        if isinstance(score, RewardFailed):
            raise score
        return score

    def score_batch(self, rollout: Rollout) -> list[float | RewardFailed | None]:
        """Returns a score for each completion, or why there is none. Raises `RewardFailed` if the process ended.

        What cannot be pickled is scored in this process: a user's own task may put anything into its examples.
        """
        try:
            pickled = pickle.dumps(rollout).hex()
        except (pickle.PicklingError, AttributeError, TypeError):
            return try_all(self.reward, rollout)
        count = len(rollout.completions)
        limit_s = self.limit_s * (1 + (count - 1) / _BATCH_SHARE)
        failed = partial(failure, self.reward.name, rollout.completions[0], rollout.examples[0])
        try:
            answer = self._ask(pickled, limit_s)
        except RequestFailed as error:
            raise RewardFailed(str(error), hint=error.hint) from error
        except WorkerFailed as error:
            self.end()
            if error.code is None:
                what = (
                    f"takes longer than {limit_s:g} s for {'one completion' if count == 1 else f'{count} completions'}"
                )
                hint = "Bound its work: no open-ended pattern, search or evaluation of a text."
                raise failed(what, hint, fault="hangs") from error
            what = f"ended the process that tried it, with exit code {error.code}"
            raise failed(what, "Keep it from ending its process: it would end the run.") from error
        return (
            try_all(self.reward, rollout) if "unreadable" in answer else list(map(_score_or_failure, answer["scores"]))
        )

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = None

    def _ask(self, pickled: str, limit_s: float) -> dict[str, Any]:
        reward = {"source": self.reward.source, "name": self.reward.name}
        if self._worker is None:
            self._worker = JsonWorker("lowmem_rl.rewards.isolated_worker", self.log)
            self._worker.ask(reward)  # without a limit: importing the user's file may take its time
        is_main = threading.current_thread() is threading.main_thread()
        answer: dict[str, Any] = self._worker.ask(reward | {"pickled": pickled, "is_main": is_main}, limit_s)
        return answer


def _score_or_failure(answer: Any) -> float | RewardFailed | None:
    if isinstance(answer, dict):
        return RewardFailed(answer["error"], hint=answer["hint"], fault=answer["fault"])
    score: float | None = answer
    return score
