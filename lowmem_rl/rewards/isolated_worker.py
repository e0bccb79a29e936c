"""The process of a user's reward: it scores what it is sent until there is no more."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

from lowmem_rl.errors import LowMemError, RewardError
from lowmem_rl.rewards.reward import Reward, RewardFailed, try_all
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.workers import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the scores of what is pickled in a request; one without it only loads the reward."""
    reward = _load(request["source"], request["name"])
    if "pickled" not in request:
        return {}
    try:
        rollout = pickle.loads(bytes.fromhex(request["pickled"]))  # our own parent wrote it
    except Exception:  # noqa: BLE001 - what an object's own class raises, and modules that are not here
        return {"unreadable": True}
    score = partial(try_all, reward, rollout)
    # TRL calls functions on the main thread; ours are checked on both.
    if request["is_main"] or reward.kind == "unknown":
        return {"scores": [_plain(one) for one in score()]}
    with ThreadPoolExecutor(1) as pool:  # a reward that is asked off the main thread is scored off the main thread
        return {"scores": [_plain(one) for one in pool.submit(score).result()]}


def _plain(score: float | RewardFailed | None) -> Any:
    if isinstance(score, RewardFailed):
        return {"error": str(score), "hint": score.hint, "fault": score.fault}
    return score


@cache
def _load(source: str, name: str) -> Reward:
    try:
        return replace(load_reward(source), name=name)
    except LowMemError as error:
        what = f"Reward {name!r} cannot be loaded again: {str(error).rstrip('.')}."
        raise RewardError(what, hint=error.hint) from error


if __name__ == "__main__":
    serve(answer)
