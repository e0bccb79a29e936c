"""Writes down what happens in training: metric rows, samples, accuracy of the sampled completions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import TrainingError
from lowmem_rl.evaluation.grader import Grader
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.signal.groups import informative_share
from lowmem_rl.storage.run_dir import Row, RunDir, append_row
from lowmem_rl.tasks.curriculum import RolloutOutcome
from lowmem_rl.telemetry.metrics import Rollout, metric_row
from lowmem_rl.telemetry.step_timer import StepTimer
from lowmem_rl.trl_adapter.trainer import ScoredBatch


class Recorder:
    """Turns TRL's logs and the scored rollouts of a run into the rows of its directory."""

    def __init__(
        self,
        run_dir: RunDir,
        config: RunConfig,
        rewards: RewardSet,
        judge: Grader,
        examples: Mapping[str, Example],
        policy: Policy,
        on_drawn: Callable[[RolloutOutcome], None],
        on_kept: Callable[[list[Row]], None] = lambda rows: None,
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self.rewards = rewards
        self.judge = judge
        self.examples = examples
        self.policy = policy
        self.on_drawn, self.on_kept = on_drawn, on_kept
        self.step = 0
        self.rollout = Rollout(accuracy=0.0, informative_share=0.0, tokens=0)
        self.rows: list[Row] = []
        """What was sampled since the last step, in one round or, where dead groups are replaced, in several."""
        self.right = 0
        self.clock = StepTimer(policy.device)

    def on_scored(self, batch: ScoredBatch) -> None:
        """Keeps what was asked and what came out, and now and then the completions."""
        rows = list(self._sample_rows(batch))
        if all(score is None for row in rows for score in row["scores"].values()):
            raise TrainingError(
                f"Step {self.step + 1}: no reward scored any of {len(rows)} completions, all were skipped (None).",
                hint="A reward returns a number for at least some completions; try it on a gold completion.",
            )
        drawn = self._drawn(rows)
        append_row(self.run_dir.order, drawn.to_json())
        self.on_drawn(drawn)
        self.rows += rows
        self.right += sum(drawn.right)
        self.rollout = Rollout(
            # Lenient and whatever the rewards are: what grows here was learnt, not what was paid.
            accuracy=self.right / len(self.rows),
            informative_share=informative_share([row["reward"] for row in self.rows], self.config.grpo.group_size),
            tokens=sum(row["tokens"] for row in self.rows),
        )
        if self.step % self.config.logging.samples_every == 0:
            for row in rows:
                append_row(self.run_dir.samples, row)
            self.on_kept(rows)

    def on_logs(self, logs: Mapping[str, Any], step: int, peak_bytes: int) -> Row:
        """Writes the row of a step and returns it."""
        row = metric_row(logs, self.rollout, step=step, seconds=self.clock.read(), peak_bytes=peak_bytes)
        self.rows, self.right = [], 0
        self.rollout = replace(self.rollout, tokens=0)  # a later step of the same rollout samples none
        append_row(self.run_dir.metrics, row)
        self.step = step
        return row

    def counts(self) -> dict[str, Any]:
        """Returns what a later step's row is made of, at the border of two steps."""
        return {"step": self.step, "rollout": asdict(self.rollout)}

    def go_on(self, counts: Mapping[str, Any]) -> None:
        """Begins at such a border."""
        self.step, self.rollout = counts["step"], Rollout(**counts["rollout"])

    def restart_clock(self) -> None:
        """Begins a step's time now: what lies between two steps belongs to neither."""
        self.clock.restart()

    def _drawn(self, rows: Sequence[Row]) -> RolloutOutcome:
        right: dict[str, int] = {}
        for row in rows:
            key = row["example_id"]
            # A judge that fails has been told of where it is a reward, too; here its completion is not right.
            is_right = self.judge.is_right(row["completion"], self.examples[key], on_failure=lambda error: None)
            right[key] = right.get(key, 0) + is_right
        return RolloutOutcome(self.step + 1, tuple(right), tuple(right.values()), self.config.grpo.group_size)

    def _sample_rows(self, batch: ScoredBatch) -> Iterator[Row]:
        names = [reward.name for reward in self.rewards.rewards]
        for key, ids, scores in zip(batch.example_ids, batch.completion_ids, batch.scores, strict=True):
            weighted = zip(self.rewards.weights, scores, strict=True)
            yield {
                "step": self.step + 1,
                "example_id": key,
                "prompt": self.examples[key].question,
                "answer": self.examples[key].answer,
                "completion": self.policy.complete(ids),
                "scores": dict(zip(names, scores, strict=True)),
                "reward": sum(weight * (score or 0.0) for weight, score in weighted),
                "tokens": len(ids),
                "truncated": ids[-1] not in self.policy.stop_ids,
            }


def step_callback(
    after_step: Callable[[Mapping[str, Any], int], None], before_optimizer: Callable[[], None] = lambda: None
) -> Any:
    """Returns a trainer callback that passes each step's logs on, and tells when the weights are about to move.

    It listens to `on_log`, which comes after `on_step_end`: a row is written before anything
    else is done at that step.
    """
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            before_optimizer()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                after_step(logs, state.global_step)

    return StepCallback()
