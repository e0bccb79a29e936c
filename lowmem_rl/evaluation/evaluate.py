"""Evaluation on held-out examples, greedy and sampled, graded by the answer and not by the training reward.

It can be stopped at any time: finished answers are in its files, and the same call continues after them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lowmem_rl.engine.adapter import weights_digest
from lowmem_rl.engine.hf_generate import Completion
from lowmem_rl.engine.logprobs import encode_turn, kl_from_base
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY, SamplingParams
from lowmem_rl.evaluation.eval_items import Item, ItemFile, Key
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.evaluation.grader import vote_of
from lowmem_rl.evaluation.summary import summarise
from lowmem_rl.example import Example
from lowmem_rl.memory.base_comparison import KL_COMPLETIONS
from lowmem_rl.rewards.reward import OnFailure
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.verify import late_verdicts


@dataclass(frozen=True, slots=True)
class EvalFiles:
    """The files of an evaluation: one row per item, and one per sample."""

    items: Path
    sampled: Path

    @classmethod
    def of(cls, run_dir: RunDir, name: str) -> "EvalFiles":
        """Returns the files of a run's evaluation."""
        return cls(run_dir.eval_items(name), run_dir.eval_samples(name))


def evaluate(
    sampler: Sampler,
    eval_set: EvalSet,
    files: EvalFiles,
    *,
    step: int,
    measures_kl: bool = True,
    on_progress: Callable[[int], None] = lambda done: None,
    on_failure: OnFailure | None = None,
) -> EvalResult:
    """Answers and grades the examples, writes one row per answer, and returns the summary.

    Answers that are in `files` already, by these weights under these settings, are not generated again. A reward
    that fails is reported to `on_failure` and skipped. Raises `RewardError` if there is no `on_failure`.
    """
    began = time.monotonic()
    answer = partial(_answer, sampler, eval_set, weights=weights_digest(sampler.policy), on_failure=on_failure)
    items = answer(eval_set.greedy, files.items, GREEDY, on_progress=on_progress)
    sampled: list[Item] = []
    if eval_set.samples:
        sampled = answer(
            eval_set.sampled,
            files.sampled,
            eval_set.params,
            on_progress=lambda done: on_progress(len(items) + done),
        )
    kl_nats = _kl_nats(sampler, items, eval_set.examples) if measures_kl else None
    return summarise(eval_set, items, sampled, step=step, seconds=time.monotonic() - began, kl_nats=kl_nats)


def _answer(
    sampler: Sampler,
    eval_set: EvalSet,
    keys: Sequence[Key],
    path: Path,
    params: SamplingParams,
    *,
    weights: str,
    on_progress: Callable[[int], None],
    on_failure: OnFailure | None,
) -> list[Item]:
    """Returns the items of `keys`, generating those that the file lacks."""
    by_id = {example.id: example for example in eval_set.examples}
    by = eval_set.digest(weights, params)
    file = ItemFile(path, by)
    open_keys = [key for key in keys if not (key in file.items and file.items[key].answers(by_id[key[0]]))]
    done = len(keys) - len(open_keys)
    on_progress(done)
    prompts = [by_id[example_id].prompt for example_id, _ in open_keys]
    streams = [f"eval {eval_set.seed}/{example_id}/{sample}" for example_id, sample in open_keys]
    answers = sampler.answers(prompts, params, max_tokens=eval_set.max_tokens, batch=eval_set.batch, streams=streams)
    for number, completion in answers:
        example_id, sample = open_keys[number]
        file.add(_grade(eval_set, completion, by_id[example_id], on_failure, sample=sample, by=by))
        done += 1
        on_progress(done)
    return file.finish(keys)


def _grade(
    eval_set: EvalSet, completion: Completion, example: Example, on_failure: OnFailure | None, *, sample: int, by: str
) -> Item:
    """Returns one completion with its lenient and strict grades and its scores."""
    grader, text, late_before = eval_set.grader, completion.text, late_verdicts()
    item = Item(
        example_id=example.id,
        prompt=example.question,
        answer=example.answer,
        completion=text,
        tokens=completion.tokens,
        truncated=completion.truncated,
        correct=grader.is_right(text, example, on_failure),
        strict=grader.is_strictly_right(text, example, on_failure),
        scores=eval_set.rewards.score(text, example, on_failure).scores,
        level=example.level,
        sample=sample,
        vote=vote_of(grader.find(text)),
        strict_vote=vote_of(grader.find_strict(text)),
        by=by,
    )
    return replace(item, late_verdicts=late_verdicts() - late_before)


def _kl_nats(sampler: Sampler, items: Sequence[Item], examples: Sequence[Example]) -> float | None:
    """Returns the KL divergence over the first greedy completions, None if they have no tokens.

    Left out are empty completions, and those whose text is too long for the model when it is encoded again. A forward
    reads the rows of a training micro-batch.
    """
    policy, pairs = sampler.policy, zip(items[:KL_COMPLETIONS], examples[:KL_COMPLETIONS], strict=True)
    rows = [encode_turn(policy, e.prompt, item.completion, truncated=item.truncated) for item, e in pairs]
    readable = [(prompt, ids) for prompt, ids in rows if ids and policy.takes(len(prompt) + len(ids))]
    return kl_from_base(policy, readable, batch=sampler.config.micro_batch) if readable else None
