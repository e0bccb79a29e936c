"""Our rewards in TRL's list shape. The only place that knows it.

TRL hands over completions that `parse_response` may have split into reasoning and content, which would hide the think
block from the format reward: the sampled ids are decoded here instead, with what the chat template prefills.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward, Rollout, score_all
from lowmem_rl.training.reward_errors import RewardErrorCounter

Complete = Callable[[Sequence[int]], str]
"""Turns sampled ids into the assistant's whole turn."""


class TrlReward:
    """One reward as TRL calls it; TRL names its metrics by `__name__`."""

    def __init__(
        self, reward: Reward, examples: Mapping[str, Example], complete: Complete, errors: RewardErrorCounter
    ) -> None:
        self.__name__ = reward.name
        self.reward, self.examples, self.complete, self.errors = reward, examples, complete, errors

    def __call__(
        self, completion_ids: Sequence[Sequence[int]], example_id: Sequence[str], trainer_state: Any = None, **_: Any
    ) -> list[float | None]:
        """Scores one generation batch; a failed scoring is skipped (None), reported and counted."""
        failures: list[RewardError] = []
        rollout = Rollout(
            [self.complete(ids) for ids in completion_ids],
            [self.examples[key] for key in example_id],
            completion_ids,
            _plain_values(trainer_state),
        )
        scores = score_all(self.reward, rollout, failures.append)
        self.errors.add(failures, len(scores))
        return scores


def _plain_values(trainer_state: Any) -> dict[str, Any]:
    """Returns the numbers and texts of a `TrainerState`, which a process without transformers can read."""
    values = vars(trainer_state) if trainer_state is not None else {}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str)}
