"""Our rewards in TRL's list shape. The only place that knows it.

TRL hands over completions that `parse_response` may have split into reasoning and content,
which would hide the think block from the format reward: the sampled ids are decoded here
instead, and what the chat template put into the assistant's mouth is put back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lowmem_rl.errors import RewardError, TrainingError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward, score_all

Complete = Callable[[Sequence[int]], str]
"""Turns sampled ids into the assistant's whole turn."""


class RewardErrorCounter:
    """Completions that were scored and scorings that failed, over all rewards of a run."""

    def __init__(self, max_share: float, on_failure: Callable[[str], None]) -> None:
        self.max_share = max_share
        self.on_failure = on_failure
        self.scored = self.failed = 0

    def counts(self) -> dict[str, int]:
        """Returns what is counted, for a run that goes on."""
        return {"scored": self.scored, "failed": self.failed}

    def go_on(self, counts: Mapping[str, int]) -> None:
        """Counts on from there."""
        self.scored, self.failed = counts["scored"], counts["failed"]

    def add(self, failures: Sequence[RewardError], scored: int) -> None:
        """Counts one batch. Raises `TrainingError` when the failed share of the run is above the limit."""
        self.scored += scored
        self.failed += len(failures)
        for failure in failures:
            self.on_failure(str(failure))
        if failures and self.failed > self.max_share * self.scored:
            raise TrainingError(
                f"{self.failed} of {self.scored} scorings failed, the last one so: {failures[-1]}",
                hint="Mend the reward, or raise health.max_reward_error_share.",
            ) from failures[-1]


class TrlReward:
    """One reward as TRL calls it; TRL names its metrics by `__name__`."""

    def __init__(
        self, reward: Reward, examples: Mapping[str, Example], complete: Complete, failures: RewardErrorCounter
    ) -> None:
        self.__name__ = reward.name
        self.reward = reward
        self.examples = examples
        self.complete = complete
        self.failures = failures

    def __call__(
        self, completion_ids: Sequence[Sequence[int]], example_id: Sequence[str], **_: Any
    ) -> list[float | None]:
        """Scores one generation batch; a failed scoring is skipped (None), recorded and counted."""
        failures: list[RewardError] = []
        examples = [self.examples[key] for key in example_id]
        scores = score_all(self.reward, [self.complete(ids) for ids in completion_ids], examples, failures.append)
        self.failures.add(failures, len(scores))
        return scores
