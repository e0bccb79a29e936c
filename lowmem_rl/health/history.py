"""`RunHistory`: what a run has written so far, as the detectors read it.

Only a row of a step for which completions were sampled has a `reward`: those rows are the rounds of sampling. The
prompt is the unit of evidence, because completions of one prompt resemble each other.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.saved_config import recorded_config
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.storage.run_reader import RunReader, number

_LEAST_SCALE = 1.0
"""Of the loss, in float16."""
_UNSETTLED = 2
"""Rounds after a change of what learns: a new optimizer state moves each number by the whole learning rate."""
_SHORT_PERIOD = 2 * _UNSETTLED
"""Rounds of a period of which less than half would be left: there each round is as unsettled as any."""
_FORMAT_REWARDS = ("answer_tags", "tag_count")
"""Our rewards for the format alone, next to those with "format" in their name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled completion."""

    step: int
    example_id: str
    prompt: str
    answer: str
    completion: str
    truncated: bool


Group = tuple[Sample, ...]
"""The completions of one prompt."""


@dataclass(frozen=True, slots=True)
class EvalPoint:
    """One greedy evaluation on held-out examples."""

    step: int
    pass_at_1: float
    num_examples: int
    completion_tokens: float
    kl_nats: float | None = None
    """KL divergence from the base model per token, if it was measured."""


@dataclass(frozen=True, slots=True)
class RollbackRecord:
    """After step `step` the run restored the weights of step `to`; the steps between no longer count."""

    step: int
    to: int


@dataclass(frozen=True)
class RunHistory:
    """The rows of a run, by ascending step."""

    config: RunConfig
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...] = ()
    evaluations: tuple[EvalPoint, ...] = ()
    rollbacks: tuple[RollbackRecord, ...] = ()

    @cached_property
    def rounds(self) -> tuple[Row, ...]:
        """The rows of steps for which completions were sampled."""
        return tuple(row for row in self.rows if "reward" in row)

    @cached_property
    def settled(self) -> "RunHistory":
        """The history without the first two rounds after each change of the layers that learn.

        All of it if `trainable.schedule` changes them so often that hardly any would be left.
        """
        grpo, trainable = self.config.grpo, self.config.trainable
        rounds_of_a_period = trainable.every / (grpo.steps_per_rollout * grpo.passes_per_rollout)
        if trainable.schedule == "fixed" or rounds_of_a_period < _SHORT_PERIOD:
            return self
        return replace(self, rows=tuple(_settled(self.rows)))

    @property
    def step(self) -> int:
        """The last step, 0 before the first."""
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def prompts_per_round(self) -> int:
        return self.config.grpo.prompts_per_step * self.config.grpo.steps_per_rollout

    @property
    def completions_per_round(self) -> int:
        return self.prompts_per_round * self.config.grpo.group_size

    @property
    def prompts_are_comparable(self) -> bool:
        """True if early and late prompts are of one kind; not so under a curriculum from easy to hard."""
        return self.config.curriculum.by == "none" or self.config.curriculum.how == "mixed"

    @property
    def format_rewards(self) -> list[str]:
        """The rewards that pay for the format of a completion, not for its content."""
        weights = self.config.rewards.items()
        return [name for name, w in weights if w > 0 and (name in _FORMAT_REWARDS or "format" in name.lower())]

    def until(self, step: int) -> "RunHistory":
        """Returns what counted when the row of `step` was written: an evaluation or rollback at `step` follows it."""
        past = replace(
            self,
            rows=self.rows[: bisect_right(self.rows, step, key=_step_of)],
            samples=self.samples[: bisect_right(self.samples, step, key=lambda sample: sample.step)],
            evaluations=tuple(evaluation for evaluation in self.evaluations if evaluation.step < step),
            rollbacks=tuple(rollback for rollback in self.rollbacks if rollback.step < step),
        )
        # Filled in advance: a replay would filter all rows at each step.
        past.__dict__["rounds"] = self.rounds[: bisect_right(self.rounds, step, key=_step_of)]
        return past.lasting()

    def lasting(self) -> "RunHistory":
        """Returns what still counts: what no rollback has undone."""
        return reduce(RunHistory.without, self.rollbacks, self)

    def without(self, undone: RollbackRecord) -> "RunHistory":
        """Returns the history without what a rollback has undone."""

        def lasts(step: int) -> bool:
            return not undone.to < step <= undone.step

        return replace(
            self,
            rows=tuple(row for row in self.rows if lasts(row["step"])),
            samples=tuple(sample for sample in self.samples if lasts(sample.step)),
            # The one at the step itself was made after the rollback, with the restored weights.
            evaluations=tuple(e for e in self.evaluations if lasts(e.step) or e.step == undone.step),
            rollbacks=tuple(rollback for rollback in self.rollbacks if rollback != undone),
        )

    def plus(
        self, rows: Sequence[Row] = (), samples: Sequence[Sample] = (), evaluations: Sequence[EvalPoint] = ()
    ) -> "RunHistory":
        """Returns the history with what came after it."""
        return replace(
            self,
            rows=(*self.rows, *rows),
            samples=(*self.samples, *samples),
            evaluations=(*self.evaluations, *evaluations),
        )

    def first(self, name: str, rounds: int) -> list[float]:
        """Returns a metric's numbers in the first rounds."""
        return list(numbers(self.rounds[:rounds], name))

    def last(self, name: str, rounds: int) -> list[float]:
        """Returns a metric's numbers in the last rounds."""
        return list(numbers(self.rounds[-rounds:], name))

    def steps_of_last(self, rounds: int) -> tuple[int, int]:
        """Returns the first and the last step of the last rounds."""
        return self.rounds[-rounds:][0]["step"], self.step

    def recent_groups(self, prompts: int) -> list[Group]:
        """Returns the sampled groups of the latest steps, latest first: as few steps as hold that many prompts."""
        groups: list[Group] = []
        for _, at_step in groupby(reversed(self.samples), key=lambda sample: sample.step):
            if len(groups) >= prompts:
                break
            groups += (tuple(group) for _, group in groupby(at_step, key=lambda sample: sample.example_id))
        return groups


def score_metric(reward: str) -> str:
    """Returns the metric of a reward's mean score; FILE.py:NAME is written by its name."""
    return f"scores/{reward.rpartition(':')[2]}"


def numbers(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[float]:
    """Yields a metric's finite numbers, leaving out rows without one."""
    return (value for row in rows if (value := number(row, name)) is not None)


def is_only_skipped(row: Row) -> bool:
    """Returns whether float16's gradient overflowed at a scale that can still fall: a step that changes nothing.

    The scaler halves its scale then, and doubles it after 2,000 steps without an overflow: such steps are expected,
    the first ones most of all. "If the scale falls below 1 [...], something is likely wrong"
    (torch.amp.GradScaler.update): then the unscaled gradient overflows.
    """
    return bool(row.get("optimizer_skipped")) and (number(row, "loss_scale") or 0.0) >= _LEAST_SCALE


def read_history(run_dir: RunDir) -> RunHistory:
    """Reads what the audit needs. Raises `RunDirError` if the directory is not a run's, or a file in it is damaged."""
    reader = RunReader(run_dir)
    samples = sorted(reader.parsed(run_dir.samples, sample_in), key=lambda sample: sample.step)
    rollbacks = tuple(RollbackRecord(row["step"], row["to"]) for row in reader.rollbacks)
    config = recorded_config(reader)
    return RunHistory(config, reader.metrics, tuple(samples), tuple(read_evaluations(run_dir)), rollbacks)


def sample_in(row: Row) -> Sample:
    """Returns the sample in a row of samples.jsonl. Raises KeyError, TypeError or ValueError if it holds none."""
    key, prompt, answer, completion = (str(row[name]) for name in ("example_id", "prompt", "answer", "completion"))
    return Sample(int(row["step"]), key, prompt, answer, completion, bool(row["truncated"]))


def read_evaluations(run_dir: RunDir) -> list[EvalPoint]:
    """Returns the evaluations of a run so far, by step. Raises `RunDirError`."""
    if not run_dir.evaluations.exists():
        return []
    reader = RunReader(run_dir)
    found = reader.eval_file
    with reader.parsing(run_dir.evaluations, "holds no evaluations of a run"):
        results = [found["before"], *found.get("during", ()), found.get("after")]
        return sorted((_evaluation_in(one) for one in results if one is not None), key=lambda point: point.step)


def _evaluation_in(result: Mapping[str, Any]) -> EvalPoint:
    return EvalPoint(
        int(result["step"]),
        float(result["pass_at_1"]),
        int(result["num_examples"]),
        float(result["completion_tokens"]),
        number(result, "kl_nats"),
    )


def _settled(rows: Iterable[Row]) -> Iterator[Row]:
    """Yields the rows that are not of the first two rounds after a change."""
    learning, unsettled = None, 0
    for row in rows:
        now = (row.get("trainable_layers"), row.get("trainable_numbers"))
        if learning is not None and now != learning:
            unsettled = _UNSETTLED + 1
        learning = now
        unsettled -= unsettled > 0 and "reward" in row
        if not unsettled:
            yield row


def _step_of(row: Row) -> int:
    return int(row["step"])
