"""The process of a user's reward: it scores what it is sent until there is no more."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

from lowmem_rl.errors import LowMemError, RewardError
from lowmem_rl.rewards.reward import Reward, score_with
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.workers import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the score of what is pickled in a request; one without it only loads the reward."""
    reward = _load(request["source"], request["name"])
    if "pickled" not in request:
        return {}
    try:
        completion, example = pickle.loads(bytes.fromhex(request["pickled"]))  # our own parent wrote it
    except Exception:  # noqa: BLE001 - what an object's own class raises, and modules that are not here
        return {"unreadable": True}
    score = partial(score_with, reward, completion, example)
    if request["is_main"]:
        return {"score": score()}
    with ThreadPoolExecutor(1) as pool:  # a reward that is asked off the main thread is scored off the main thread
        return {"score": pool.submit(score).result()}


@cache
def _load(source: str, name: str) -> Reward:
    try:
        return replace(load_reward(source), name=name)
    except LowMemError as error:
        what = f"Reward {name!r} cannot be loaded again: {str(error).rstrip('.')}."
        raise RewardError(what, hint=error.hint) from error


if __name__ == "__main__":
    serve(answer)
