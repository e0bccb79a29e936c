"""Reward functions as people have them for TRL and verl: their forms and habits, in our own words.

The five of `examples/trl_rewards.py` are further ones.
"""

import asyncio
import math
import re
from functools import partial, wraps

import numpy as np


def reward_number_found(completions, ground_truth, **kwargs):
    """Text completions and a column by name, as in TRL's guide."""
    found = [re.findall(r"-?\d+", completion) for completion in completions]
    return [
        1.0 if numbers and numbers[-1] == truth else 0.0 for numbers, truth in zip(found, ground_truth, strict=True)
    ]


def accuracy_reward(completions: list[list[dict[str, str]]], solution: list[str], log_extra=None, **kwargs):
    """Messages, annotated; None if the solution is no number."""
    rewards = []
    for completion, gold in zip(completions, solution, strict=True):
        text = completion[0]["content"]
        rewards.append(None if not gold.strip("-").isdigit() else gold in text)
    if log_extra:
        log_extra("solution", solution)
    return rewards


def token_length_reward(completion_ids, trainer_state, **kwargs):
    """Sampled ids, and a schedule over the steps."""
    progress = trainer_state.global_step / max(1, trainer_state.max_steps)
    return [-(1.0 - 0.5 * progress) * len(ids) / 64 for ids in completion_ids]


async def asking_reward(prompts, completions, **kwargs):
    """Asks about each completion at once."""

    async def ask(prompt, completion):
        await asyncio.sleep(0.001)
        return float(len(completion[-1]["content"]) > len(prompt[-1]["content"]))

    return await asyncio.gather(*map(ask, prompts, completions))


def on_text(scorer):
    """A decorator from one text to TRL's form."""

    @wraps(scorer)
    def batched(completions, **kwargs):
        return np.array([scorer(completion[0]["content"]) for completion in completions])

    return batched


@on_text
def boxed_once(text):
    return text.count("\\boxed{") == 1


class RepetitionPenalty:
    """A callable with options, for text or messages."""

    def __init__(self, size: int, most: float) -> None:
        self.size, self.most = size, most

    def __call__(self, completions, **kwargs) -> list[float]:
        contents = [c[0]["content"] if isinstance(c, list) else c for c in completions]
        return [self.most * self.repeated(text) for text in contents]

    def repeated(self, text: str) -> float:
        words = list(text)
        grams = [tuple(words[i : i + self.size]) for i in range(len(words) - self.size + 1)]
        return 1 - len(set(grams)) / len(grams) if grams else 0.0


repetition_penalty = RepetitionPenalty(size=3, most=-0.5)


def cosine(completions, answer, max_chars, **kwargs):
    scores = [1.0 if a in c else -1.0 for c, a in zip(completions, answer, strict=True)]
    return [
        s * 0.5 * (1 + math.cos(math.pi * min(1, len(c) / max_chars))) for c, s in zip(completions, scores, strict=True)
    ]


cosine_reward = partial(cosine, max_chars=200)


def group_diversity(prompts, completions, **kwargs):
    """Compares the completions of a batch: it must be one call."""
    print("scoring", len(completions), "completions")  # noqa: T201
    return [1.0 / completions.count(completion) for completion in completions]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """verl's form, with a dictionary."""
    if data_source != "arithmetic" or "question" not in extra_info:
        raise NotImplementedError(data_source)
    right = ground_truth in solution_str[-20:]
    return {"score": np.float32(right), "acc": right}


def gsm8k_score(solution_str, ground_truth, method="strict", format_score=0.1, score=1.0):
    """A rule of verl's own, with options."""
    match = re.search(r"#### (-?\d+)" if method == "strict" else r"(-?\d+)", solution_str)
    return 0 if match is None else score if match.group(1) == ground_truth else format_score
