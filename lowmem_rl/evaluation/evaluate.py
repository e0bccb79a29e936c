"""Evaluation on held-out examples, greedy and sampled, judged by the answer and apart from the training reward.

It can be stopped at any time: what is answered is in its files, and the same call goes on behind it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lowmem_rl.engine.adapter import weights_digest
from lowmem_rl.engine.hf_generate import Completion
from lowmem_rl.engine.logprobs import encode_turn, kl_from_base
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY, SamplingParams
from lowmem_rl.evaluation.eval_items import Item, ItemFile, Key
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.evaluation.grader import Grader
from lowmem_rl.evaluation.majority_vote import vote_of
from lowmem_rl.evaluation.summary import summarise
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import OnFailure, RewardSet
from lowmem_rl.storage.run_dir import RunDir

KL_COMPLETIONS = 8
"""Greedy completions over whose tokens the distance from the base model is averaged."""


@dataclass(frozen=True, slots=True)
class EvalFiles:
    """Where an evaluation keeps its rows: one an item, and one a sample."""

    items: Path
    sampled: Path

    @classmethod
    def of(cls, run_dir: RunDir, name: str) -> "EvalFiles":
        """Returns the files of a run's evaluation."""
        return cls(run_dir.eval_items(name), run_dir.eval_samples(name))


def evaluate(
    sampler: Sampler,
    asked: EvalSet,
    files: EvalFiles,
    *,
    step: int,
    measures_kl: bool = True,
    on_progress: Callable[[int], None] = lambda done: None,
    on_failure: OnFailure | None = None,
) -> EvalResult:
    """Has the examples answered, judges, writes one row an answer, and sums up.

    Answers that stand in `files` already, by these weights under these settings, are not asked for again. A reward
    that fails is told to `on_failure` and skipped; without it `RewardError` is raised.
    """
    began = time.monotonic()
    weights = weights_digest(sampler.policy)
    answered = partial(_answered, sampler, asked, weights=weights, on_failure=on_failure)
    items = answered(asked.greedy, files.items, GREEDY, on_progress=on_progress)
    sampled: list[Item] = []
    if asked.samples:
        behind = len(items)
        sampled = answered(
            asked.sampled, files.sampled, asked.params, on_progress=lambda done: on_progress(behind + done)
        )
    kl_nats = _kl_nats(sampler.policy, items, asked.examples) if measures_kl else None
    return summarise(asked, items, sampled, step=step, seconds=time.monotonic() - began, kl_nats=kl_nats)


def _answered(
    sampler: Sampler,
    asked: EvalSet,
    keys: Sequence[Key],
    path: Path,
    params: SamplingParams,
    *,
    weights: str,
    on_progress: Callable[[int], None],
    on_failure: OnFailure | None,
) -> list[Item]:
    """Returns the items of `keys`, asking for those that the file lacks."""
    by_id = {example.id: example for example in asked.examples}
    by = asked.digest(weights, params)
    file = ItemFile(path, by)
    open_keys = [key for key in keys if not (key in file.items and file.items[key].answers(by_id[key[0]]))]
    done = len(keys) - len(open_keys)
    on_progress(done)
    prompts = [by_id[example_id].prompt for example_id, _ in open_keys]
    names = [f"eval {asked.seed}/{example_id}/{sample}" for example_id, sample in open_keys]
    answers = sampler.answers(prompts, params, max_tokens=asked.max_tokens, batch=asked.batch, names=names)
    for number, completion in answers:
        example_id, sample = open_keys[number]
        item = judged(completion, by_id[example_id], asked.grader, asked.rewards, on_failure, sample=sample, by=by)
        file.add(item)
        done += 1
        on_progress(done)
    return file.finish(keys)


def judged(
    completion: Completion,
    example: Example,
    grader: Grader,
    rewards: RewardSet,
    on_failure: OnFailure | None = None,
    *,
    sample: int = 0,
    by: str = "",
) -> Item:
    """Returns one completion judged leniently and strictly, with the scores of the given rewards."""
    return Item(
        example_id=example.id,
        prompt=example.question,
        answer=example.answer,
        completion=completion.text,
        tokens=completion.tokens,
        truncated=completion.truncated,
        correct=grader.is_right(completion.text, example, on_failure),
        strict=grader.is_strictly_right(completion.text, example, on_failure),
        scores=rewards.score(completion.text, example, on_failure).scores,
        level=example.level,
        sample=sample,
        vote=vote_of(grader.finds(completion.text)),
        strict_vote=vote_of(grader.finds_strictly(completion.text)),
        by=by,
    )


def _kl_nats(policy: Policy, items: Sequence[Item], examples: Sequence[Example]) -> float | None:
    """Returns how far the policy is from its base over the first completions, None if there is nothing to read.

    An empty completion is left out, and one whose text is too long for the model when it is encoded again.
    """
    pairs = zip(items[:KL_COMPLETIONS], examples[:KL_COMPLETIONS], strict=True)
    rows = [encode_turn(policy, e.prompt, item.completion, truncated=item.truncated) for item, e in pairs]
    spoken = [(prompt, ids) for prompt, ids in rows if ids and policy.takes(len(prompt) + len(ids))]
    return kl_from_base(policy, spoken) if spoken else None
