"""How many scorings may fail before a run stops."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lowmem_rl.errors import RewardError, TrainingError


class RewardErrorCounter:
    """Completions that were scored and scorings that failed, over all rewards of a run."""

    def __init__(self, max_share: float, report: Callable[[str], None]) -> None:
        self.max_share, self.report = max_share, report
        self.scored = self.failed = 0

    def add(self, failures: Sequence[RewardError], scored: int) -> None:
        """Counts one batch. Raises `TrainingError` if the failed share of the run is above the limit."""
        self.scored += scored
        self.failed += len(failures)
        for failure in failures:
            self.report(str(failure))
        if failures and self.failed > self.max_share * self.scored:
            raise TrainingError(
                f"{self.failed} of {self.scored} scorings failed, the last one with: {failures[-1]}",
                hint="Fix the reward, or raise health.max_reward_error_share.",
            ) from failures[-1]

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts, for a run that resumes."""
        return {"failures": {"scored": self.scored, "failed": self.failed}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues to count from such a state."""
        self.scored, self.failed = state["failures"]["scored"], state["failures"]["failed"]
