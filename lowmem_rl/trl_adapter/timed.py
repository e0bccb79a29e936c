"""Times and counts the phases of any GRPOTrainer, for benchmarks: those of TRL and Unsloth have no hooks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from trl import GRPOTrainer as TrlTrainer
else:
    TrlTrainer = object  # the real base comes when the classes are joined


class PhaseTimer(Protocol):
    """What times and counts."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Around each phase."""

    def count_scores(self, completion_ids: Sequence[Sequence[int]], rewards: Tensor) -> None:
        """After scoring; rewards (rows,) are weighted sums."""

    def tokens_read(self) -> int:
        """Tokens of the step that were read with a gradient."""

    def count_update(self, inputs: Any, tokens_before: int) -> None:
        """After the forward of a micro-batch."""


class TimedMixin(TrlTrainer):
    """Comes first among a trainer's classes; `timer` is set on the subclass that joins them."""

    timer: PhaseTimer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        backward = self.accelerator.backward

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            with self.timer.phase("update"):
                backward(*args, **kwargs)

        self.accelerator.backward = timed_backward

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self.timer.phase("rollout"):
            return super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        with self.timer.phase("scoring"):
            scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.timer.count_scores(completion_ids_list, (scores * self.reward_weights.to(scores.device)).nansum(1))
        return scores

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Times the forward."""
        before = self.timer.tokens_read()
        with self.timer.phase("update"):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.timer.count_update(inputs, before)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        with self.timer.phase("optimizer"):
            return super()._clip_grad_norm(model)
