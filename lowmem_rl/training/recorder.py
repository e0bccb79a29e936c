"""Writes what happens in training into the run directory: metrics, samples, and which prompts were asked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import TrainingError
from lowmem_rl.grpo.scored_batch import ScoredBatch, keeps_samples
from lowmem_rl.grpo.train_dataset import Prompt
from lowmem_rl.signal.groups import informative_share
from lowmem_rl.storage.run_dir import Row, RunDir, append_row
from lowmem_rl.telemetry.events import Listener, StepEnded
from lowmem_rl.telemetry.metrics import RolloutFigures
from lowmem_rl.verify import late_verdicts


class Recorder:
    """Keeps metrics.jsonl, samples.jsonl and order.jsonl."""

    def __init__(self, run_dir: RunDir, config: RunConfig, listen: Listener) -> None:
        self.run_dir, self.config, self.listen = run_dir, config, listen
        self.step = 0
        self.rollout = RolloutFigures(accuracy=0.0, informative_share=0.0, tokens=0)
        self.rows: list[Row] = []
        """What was sampled since the last step, in one round or, if dead groups are replaced, in several."""
        self.num_correct = self.num_late = self._late_before = 0

    def choose_prompts(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Changes nothing; a late verdict of an evaluation before this round is not one of the step."""
        self._late_before = late_verdicts()
        return list(prompts)

    def on_scored(self, batch: ScoredBatch) -> None:
        """Keeps what was asked and what came out, and every so often the completions.

        Raises `TrainingError` if no reward scored any completion.
        """
        if all(score is None for row in batch.rows for score in row["scores"].values()):
            raise TrainingError(
                f"Step {batch.step}: no reward scored any of {len(batch.rows)} completions, all were skipped (None).",
                hint="A reward returns a number for at least some completions; try it on a gold completion.",
            )
        append_row(self.run_dir.order, batch.outcome.to_json())
        self.rows += batch.rows
        self.num_correct += sum(batch.correct)
        self.num_late += late_verdicts() - self._late_before
        self.rollout = RolloutFigures(
            # Lenient, whatever the rewards are: what grows here was learned, not paid for.
            accuracy=self.num_correct / len(self.rows),
            informative_share=informative_share([row["reward"] for row in self.rows], self.config.grpo.group_size),
            tokens=sum(row["tokens"] for row in self.rows),
        )
        if keeps_samples(batch.step, self.config.logging.samples_every):
            for row in batch.rows:
                append_row(self.run_dir.samples, row)

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Completes the step's row with what was sampled, writes it and emits it."""
        row |= {"accuracy": self.rollout.accuracy, "informative_share": self.rollout.informative_share}
        row["late_verdicts"] = self.num_late
        row["completion_tokens_per_s"] = self.rollout.tokens / row["step_s"]
        self.rows, self.num_correct, self.num_late = [], 0, 0
        self.rollout = replace(self.rollout, tokens=0)  # a later step of the same rollout samples none
        append_row(self.run_dir.metrics, row)
        self.step = row["step"]
        self.listen(StepEnded(row, self.config.grpo.steps))

    def state_dict(self) -> dict[str, Any]:
        """Returns what a later step's row is made of."""
        return {"recorder": {"step": self.step, "rollout": asdict(self.rollout)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from such a state."""
        self.step, self.rollout = state["recorder"]["step"], RolloutFigures(**state["recorder"]["rollout"])
