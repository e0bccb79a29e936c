"""The built-in rewards as strings, so that listing them imports none. `FILE.py:NAME` is a user's own."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from lowmem_rl.config.user_code import is_user_code, load_object, refuse_bare_file
from lowmem_rl.errors import UnknownName
from lowmem_rl.rewards.reward import Reward, RewardSet
from lowmem_rl.rewards.user_reward import reward_of

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
    """Returns the reward of that name; of a user's file a `Reward`, or a function in one of the forms of `signatures`.

    Raises `UnknownName`, `ConfigError`, and `TaskError` if a user's file fails.
    """
    if is_user_code(name):
        found = load_object(name, kind="reward")
        return replace(found, source=name) if isinstance(found, Reward) else reward_of(found, name)
    refuse_bare_file(name, "reward")
    if name not in REWARDS:
        raise UnknownName("reward", name, REWARDS)
    module, _, attribute = REWARDS[name].partition(":")
    reward: Reward = getattr(import_module(module), attribute)
    return reward


def load_reward_set(weights: Mapping[str, float]) -> RewardSet:
    """Returns the rewards named in `weights` without those of weight 0. Raises as `load_reward` does.

    Of two rewards with one name, those of a user's files are known by file and name.
    """
    used = {name: weight for name, weight in weights.items() if weight != 0}
    rewards = [load_reward(name) for name in used]
    names = Counter(reward.name for reward in rewards)
    known = (replace(r, name=r.source) if r.source and names[r.name] > 1 else r for r in rewards)
    return RewardSet(tuple(known), tuple(used.values()))
