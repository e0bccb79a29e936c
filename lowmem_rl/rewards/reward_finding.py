"""What can be wrong with a reward."""

from dataclasses import dataclass, field
from typing import Any, Literal

from lowmem_rl.finding import Finding

Fault = Literal[
    "hangs",  # takes longer than any score may
    "fails",  # raises, or returns what is not a score
    "miscounts",  # returns more or fewer scores than it got completions
    "thread-bound",  # scores differently off the main thread
    "constant",  # pays every completion the same, or skips all
    "unreachable",  # what earns it cannot be written under this chat template
    "never-full",  # no perfect completion earns the maximum
    "unpaid",  # a perfect completion earns no more than a wrong one
    "blind",  # a wrong answer earns as much as the right one
    "worthless-paid",  # nothing, padding or a list of all options earns as much
    "hedge-paid",  # two answers are paid, whichever comes last
    "outranked",  # something else earns more than the perfect completion
]


@dataclass(frozen=True, slots=True)
class RewardFinding(Finding):
    """A fault of one reward, or of all together; a note if it is not known what the reward is meant to pay for."""

    level: Literal["error", "note"] = field(default="error", kw_only=True)
    reward: str
    fault: Fault

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {"level": self.level, "reward": self.reward, "fault": self.fault, "what": self.what, "hint": self.fix}

    def __str__(self) -> str:
        return f"Reward {self.reward!r} {self.what}."
