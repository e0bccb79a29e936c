"""One round of sampling with its scores: what the trainer hands to the hooks of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.evaluation.grader import Grader
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.tasks.curriculum import RolloutOutcome


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The completions of one round, group by group; every sequence has one element a completion."""

    step: int
    """The optimizer step that they are sampled for, from 1."""
    group_size: int
    example_ids: Sequence[str]
    prompt_tokens: Sequence[int]
    completion_ids: Sequence[Sequence[int]]
    scores: Sequence[Sequence[float | None]]
    """One a reward; None: skipped."""
    rows: tuple[Row, ...] = ()
    """As samples.jsonl keeps them. Empty in a training without a run directory, as `correct` is."""
    correct: tuple[bool, ...] = ()
    """By the task's grader, lenient, whatever the rewards are."""

    @property
    def outcome(self) -> RolloutOutcome:
        """The examples of the round, and how many completions of each are correct."""
        right = dict.fromkeys(self.example_ids, 0)
        for key, is_correct in zip(self.example_ids, self.correct, strict=True):
            right[key] += is_correct
        return RolloutOutcome(self.step, tuple(right), tuple(right.values()), self.group_size)


@dataclass(frozen=True, slots=True)
class BatchDescriber:
    """Adds to a scored batch what a run directory keeps of it."""

    config: RunConfig
    policy: Policy
    rewards: RewardSet
    grader: Grader
    examples: Mapping[str, Example]
    """By id."""

    def __call__(self, batch: ScoredBatch) -> ScoredBatch:
        """Returns the batch with its rows, each completion graded."""
        rows = tuple(
            self._row(batch.step, self.examples[key], ids, scores)
            for key, ids, scores in zip(batch.example_ids, batch.completion_ids, batch.scores, strict=True)
        )
        # A failing grader is reported where it is a reward, too; here its completion is not correct.
        correct = tuple(
            self.grader.is_right(row["completion"], self.examples[row["example_id"]], on_failure=lambda error: None)
            for row in rows
        )
        return replace(batch, rows=rows, correct=correct)

    def _row(self, step: int, example: Example, ids: Sequence[int], scores: Sequence[float | None]) -> Row:
        weighted = zip(self.rewards.weights, scores, strict=True)
        return {
            "step": step,
            "example_id": example.id,
            "prompt": example.question,
            "answer": example.answer,
            "completion": self.policy.complete(ids),
            "scores": dict(zip((reward.name for reward in self.rewards.rewards), scores, strict=True)),
            "reward": sum(weight * (score or 0.0) for weight, score in weighted),
            "tokens": len(ids),
            "truncated": ids[-1] not in self.policy.stop_ids,
        }


def keeps_samples(step: int, every: int) -> bool:
    """True if the completions of `step` (from 1) are kept: those of the first step, then each `every` steps."""
    return (step - 1) % every == 0
