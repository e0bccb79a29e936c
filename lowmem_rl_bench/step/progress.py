"""What a long measurement is doing, and how long it still takes: a line from time to time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Report = Callable[[str], None]

_PAUSE_S = 5.0
"""Steps of a small model take less than a second: a line for each would be noise."""


@dataclass
class Progress:
    """Steps of arms in turns, in stages of equally many; what an arm's last step took, its next ones take too."""

    report: Report
    arms: Sequence[str]
    steps: int
    """Of each arm in a stage."""
    stages: int
    done: int = 0
    """Stages that are over."""
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    """What the last step of each arm took."""
    stage: str = ""
    _said: float = 0.0

    def begin(self, stage: str) -> None:
        """A stage begins. An arm's steps in another stage are no measure of those in this one until they are known."""
        self.stage = stage
        self.report(f"{stage}: {self.steps} steps of {len(self.arms)} arms in turns")
        self._said = self.clock()

    def before(self, arm: str, number: int) -> None:
        """Reports the step that an arm begins, if the last line is old: `number` counts from 0."""
        if self.clock() - self._said < _PAUSE_S:
            return
        self._said = self.clock()
        left = self.seconds_left(arm, number)
        time_left = "" if left is None else f", {_duration(left)} left"
        self.report(f"{self.stage}: {arm}, step {number + 1} of {self.steps}{time_left}")

    def seconds_left(self, arm: str, number: int) -> float | None:
        """Returns the time from the start of an arm's step to the end of all stages; None before each arm had one."""
        if set(self.seconds) != set(self.arms):
            return None
        place = list(self.arms).index(arm)
        steps = {name: self.steps - number - (self.arms.index(name) < place) for name in self.arms}
        here = sum(steps[name] * self.seconds[name] for name in self.arms)
        return here + (self.stages - self.done - 1) * self.steps * sum(self.seconds.values())

    def after(self, arm: str, seconds: float) -> None:
        """Takes the time of an arm's step."""
        self.seconds[arm] = seconds


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
