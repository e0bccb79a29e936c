"""A replayed step: prompts, the completions that every arm must sample, and their rewards.

Completions are random ids: the time of a step depends on their lengths, not on their content.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from math import exp, log
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lowmem_rl.example import Example, Message

Ids = tuple[int, ...]
Tokenize = Callable[[Sequence[Message]], list[int]]

_PROMPT_SPREAD = 0.25
"""Prompts are up to this share shorter or longer than their mean."""


@dataclass(frozen=True, slots=True)
class WorkloadShape:
    """Size and spread of a replayed step."""

    prompts: int
    group_size: int
    prompt_tokens: int
    """The approximate mean."""
    completion_tokens: int
    """The limit, which the longest completion reaches."""
    mean_share: float = 0.43
    """Mean completion length over the limit; below 1 lengths are exponential, truncated at the limit."""
    dead_share: float = 0.375
    """Share of groups whose rewards are all equal."""


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """A prompt with its completions, each ending in a stop id, and their rewards."""

    id: str
    messages: tuple[Message, ...]
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    rewards: tuple[float, ...]

    @property
    def is_dead(self) -> bool:
        return len(set(self.rewards)) == 1


@dataclass(frozen=True, slots=True)
class BenchWorkload:
    """The groups of a step, equal in every step and arm."""

    shape: WorkloadShape
    groups: tuple[PromptGroup, ...]

    def write(self, path: Path) -> None:
        path.write_bytes(TypeAdapter(BenchWorkload).dump_json(self))

    @classmethod
    def read(cls, path: Path) -> "BenchWorkload":
        return TypeAdapter(cls).validate_json(path.read_bytes())

    @property
    def completion_lengths(self) -> list[int]:
        return [len(ids) for group in self.groups for ids in group.completions]

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(group.prompt_ids) for group in self.groups]

    def to_json(self) -> dict[str, Any]:
        """Returns the part that records keep: sizes, not tokens."""
        lengths, prompts = self.completion_lengths, self.prompt_lengths
        return asdict(self.shape) | {
            "rows": len(lengths),
            "useful_tokens": sum(lengths),
            "mean_completion_tokens": sum(lengths) / len(lengths),
            "mean_prompt_tokens": sum(prompts) / len(prompts),
            "longest_prompt_tokens": max(prompts),
            "dead_groups": sum(group.is_dead for group in self.groups),
        }


def make_workload(
    shape: WorkloadShape,
    examples: Sequence[Example],
    tokenize: Tokenize,
    vocabulary: Sequence[int],
    stop_id: int,
    seed: int,
) -> BenchWorkload:
    """Returns the workload of a seed. `vocabulary`: the ids that do not stop; prompts are examples, padded with text.

    There must be as many examples as prompts. A prompt that is too long stays as it is.
    """
    rng = random.Random(f"{seed}-{shape}")
    lengths = _lengths(shape, rng)
    dead = set(rng.sample(range(shape.prompts), round(shape.dead_share * shape.prompts)))
    prompt_lengths = _prompt_lengths(shape, rng)
    groups = []
    for number, example in enumerate(examples[: shape.prompts]):
        padded = _padded(example, tokenize, prompt_lengths[number])
        own = lengths[number * shape.group_size : (number + 1) * shape.group_size]
        groups.append(
            PromptGroup(
                id=padded.id,
                messages=padded.prompt,
                prompt_ids=tuple(tokenize(padded.prompt)),
                completions=tuple((*rng.choices(vocabulary, k=length - 1), stop_id) for length in own),
                rewards=_rewards(shape.group_size, rng, is_dead=number in dead),
            )
        )
    return BenchWorkload(shape, tuple(groups))


def _rewards(size: int, rng: random.Random, *, is_dead: bool) -> tuple[float, ...]:
    correct = rng.randint(1, size - 1)
    rewards = [1.0] * correct + [0.0] * (size - correct)
    rng.shuffle(rewards)
    return (1.0,) * size if is_dead else tuple(rewards)


def _lengths(shape: WorkloadShape, rng: random.Random) -> list[int]:
    """Returns the completion lengths, at the quantiles of their distribution: then a few rows, too, have its mean."""
    rows, limit = shape.prompts * shape.group_size, shape.completion_tokens
    if shape.mean_share >= 1:
        return [limit] * rows
    scale = limit * _exponential_scale(shape.mean_share)
    lengths = [round(-scale * log(1 - (row + 0.5) / rows)) for row in range(rows)]
    lengths[-1] = limit
    rng.shuffle(lengths)
    return [min(max(length, 1), limit) for length in lengths]


def _exponential_scale(mean_share: float) -> float:
    """Returns the scale of an exponential whose mean is `mean_share` if it is truncated at 1, by bisection."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        mean = middle * (1 - exp(-1 / middle))
        low, high = (middle, high) if mean < mean_share else (low, middle)
    return low


def _prompt_lengths(shape: WorkloadShape, rng: random.Random) -> list[int]:
    if shape.mean_share >= 1:
        return [shape.prompt_tokens] * shape.prompts  # the worst case for trimming
    spread = _PROMPT_SPREAD * shape.prompt_tokens
    return [round(shape.prompt_tokens + rng.uniform(-spread, spread)) for _ in range(shape.prompts)]


def _padded(example: Example, tokenize: Tokenize, tokens: int) -> Example:
    """Returns the example with words before its question until its prompt has at least `tokens`."""
    *before, question = example.prompt
    words = [question["content"]]
    source = cycle(question["content"].split())
    while len(tokenize((*before, message := question | {"content": " ".join(words)}))) < tokens:
        words.insert(-1, next(source))
    return replace(example, prompt=(*before, message))
