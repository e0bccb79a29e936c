"""Greedy evaluation on held-out examples, judged by the answer and apart from the training reward."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lowmem_rl.engine.generate import Completion
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.evaluation.judge import Judge
from lowmem_rl.evaluation.result import EvalResult, Item, summarise
from lowmem_rl.example import Example
from lowmem_rl.rewards.base import OnFailure, RewardSet
from lowmem_rl.runs import append_row


def evaluate(
    sampler: Sampler,
    examples: Sequence[Example],
    judge: Judge,
    rewards: RewardSet,
    *,
    task: str,
    step: int,
    max_tokens: int,
    batch: int,
    items_path: Path,
    on_progress: Callable[[int], None] = lambda done: None,
    on_failure: OnFailure | None = None,
) -> EvalResult:
    """Answers `examples` greedily, judges, writes one row an item to `items_path`, and sums up.

    A reward that fails is told to `on_failure` and skipped; without it `RewardError` is raised.
    """
    began = time.monotonic()
    items: list[Item] = []
    prompts = [example.prompt for example in examples]
    for completion in sampler.answers(prompts, GREEDY, max_tokens=max_tokens, batch=batch):
        items.append(judged(completion, examples[len(items)], judge, rewards, on_failure))
        append_row(items_path, asdict(items[-1]))
        if len(items) % batch == 0 or len(items) == len(examples):
            on_progress(len(items))
    return summarise(items, task=task, split="test", step=step, seconds=time.monotonic() - began)


def judged(
    completion: Completion, example: Example, judge: Judge, rewards: RewardSet, on_failure: OnFailure | None = None
) -> Item:
    """Returns one completion judged leniently and strictly, with the scores of the run's rewards."""
    return Item(
        example_id=example.id,
        prompt=example.question,
        answer=example.answer,
        completion=completion.text,
        tokens=completion.tokens,
        truncated=completion.truncated,
        correct=judge.is_right(completion.text, example, on_failure),
        strict=judge.is_strictly_right(completion.text, example, on_failure),
        scores=rewards.score(completion.text, example, on_failure).scores,
    )
