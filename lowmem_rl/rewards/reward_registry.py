"""The built-in rewards as strings, so that listing them imports none. `FILE.py:NAME` is a user's own."""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from lowmem_rl.config.user_code import is_user_code, load_object, refuse_bare_file
from lowmem_rl.errors import TaskError, UnknownName
from lowmem_rl.rewards.reward import Reward, RewardSet

REWARDS = {
    "any_answer": "lowmem_rl.rewards.boxed:ANY_ANSWER",
    "answer_tags": "lowmem_rl.rewards.think_format:ANSWER_TAGS",
    "boxed_answer": "lowmem_rl.rewards.boxed:BOXED_ANSWER",
    "cosine_length": "lowmem_rl.rewards.length:COSINE_LENGTH",
    "countdown": "lowmem_rl.rewards.expression_rewards:COUNTDOWN",
    "language_consistency": "lowmem_rl.rewards.language:LANGUAGE_CONSISTENCY",
    "matrix_frobenius": "lowmem_rl.rewards.matrix:MATRIX_FROBENIUS",
    "matrix_l1": "lowmem_rl.rewards.matrix:MATRIX_L1",
    "matrix_rows": "lowmem_rl.rewards.matrix:MATRIX_ROWS",
    "perplexity": "lowmem_rl.rewards.perplexity:PERPLEXITY",
    "perplexity_signed": "lowmem_rl.rewards.perplexity:PERPLEXITY_SIGNED",
    "program_synthesis": "lowmem_rl.rewards.expression_rewards:PROGRAM_SYNTHESIS",
    "random": "lowmem_rl.rewards.random_control:RANDOM",
    "repetition": "lowmem_rl.rewards.repetition:REPETITION",
    "soft_overlong": "lowmem_rl.rewards.length:SOFT_OVERLONG",
    "tag_count": "lowmem_rl.rewards.think_format:TAG_COUNT",
    "think_format": "lowmem_rl.rewards.think_format:THINK_FORMAT",
}


def load_reward(name: str) -> Reward:
    """Returns the reward of that name; of a user's file a `Reward`, or a plain function with an unbounded range.

    Raises `UnknownName`, `ConfigError`, and `TaskError` if a user's file fails.
    """
    if is_user_code(name):
        found = load_object(name, kind="reward")
        if isinstance(found, Reward):
            return replace(found, source=name)
        if not callable(found):
            raise TaskError(f"{name} is not a reward.", hint="Name a function of (completion, example), or a Reward.")
        return Reward(getattr(found, "__name__", name), found, low=-math.inf, high=math.inf, source=name)
    refuse_bare_file(name, "reward")
    if name not in REWARDS:
        raise UnknownName("reward", name, REWARDS)
    module, _, attribute = REWARDS[name].partition(":")
    reward: Reward = getattr(import_module(module), attribute)
    return reward


def load_reward_set(weights: Mapping[str, float]) -> RewardSet:
    """Returns the rewards named in `weights` without those of weight 0. Raises as `load_reward` does."""
    used = {name: weight for name, weight in weights.items() if weight != 0}
    return RewardSet(tuple(load_reward(name) for name in used), tuple(used.values()))
