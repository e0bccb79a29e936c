"""`Detector`: a name, the least evidence it needs, and how it looks at the end of a history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lowmem_rl.finding import Finding
from lowmem_rl.health.history import Group, RunHistory
from lowmem_rl.health.significance import START

AGO = 200
"""Steps within which a metric that is not in every row must have been written."""

Severity = Literal["critical", "warning", "note"]
_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""From worst to least: to continue is wasted time; worth a look now; worth knowing."""


@dataclass(frozen=True, slots=True)
class HealthFinding(Finding):
    """A problem with a run."""

    level: Severity
    name: str
    steps: tuple[int, int]
    """The first and the last step of its evidence."""
    confidence: float
    """How likely the name is right: the certainty of the test times the detector's reliability, an estimate."""
    lasts: bool = True
    """It was still found at the last step."""

    @property
    def rank(self) -> int:
        """0 for the worst level."""
        return _SEVERITIES.index(self.level)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, with the keys of health.json."""
        return {
            "name": self.name,
            "severity": self.level,
            "steps": self.steps,
            "confidence": self.confidence,
            "what": self.what,
            "cure": self.fix,
            "lasts": self.lasts,
        }

    def __str__(self) -> str:
        first, last = self.steps
        steps = f"step {last}" if first == last else f"steps {first}-{last}"
        over = "" if self.lasts else ", over since"
        head = f"{self.level:8}  {self.name}  {steps}{over}  confidence {self.confidence:.2f}"
        return "\n".join([head, f"  {self.what}", f"  fix: {self.fix}"])


@dataclass(frozen=True, slots=True)
class Requirements:
    """The least evidence from which a detector may report something."""

    rounds: int = 0
    """Rounds of sampling, each with a number for each of the metrics; 0 if one now and then is enough."""
    metrics: tuple[str, ...] = ()
    prompts: int = 0
    """Prompts whose completions were kept."""
    comparable: bool = False
    """Early and late prompts must be of one kind."""
    evaluated: str = ""
    """What evaluations may hold instead of the metrics."""
    settled: bool = False
    """It compares means over rounds: those right after a change of the layers that learn are left out."""

    def met_by(self, history: RunHistory) -> bool:
        """Returns whether a history holds that much."""
        history = self.seen_in(history)
        return (
            len(history.rounds) >= self.rounds
            and (all(self._has(history, name) for name in self.metrics) or self._is_evaluated(history))
            and (not self.prompts or len(history.recent_groups(self.prompts)) >= self.prompts)
            and (history.prompts_are_comparable or not self.comparable)
        )

    def seen_in(self, history: RunHistory) -> RunHistory:
        """Returns the part of a history that counts."""
        return history.settled if self.settled else history

    def _has(self, history: RunHistory, name: str) -> bool:
        if not self.rounds:
            return any(name in row for row in reversed(history.rows[-AGO:]))
        first, last = history.first(name, START), history.last(name, self.rounds)
        return len(first) >= min(START, self.rounds) and len(last) == self.rounds

    def _is_evaluated(self, history: RunHistory) -> bool:
        return bool(self.evaluated) and any(getattr(one, self.evaluated) is not None for one in history.evaluations)

    def __str__(self) -> str:
        rounds = f"{self.rounds} rounds of sampling" if self.rounds else "steps" if self.metrics else ""
        parts = [" with ".join(filter(None, [rounds, ", ".join(self.metrics)]))]
        parts[0] += f", or an evaluation with {self.evaluated}" if self.evaluated else ""
        parts += [f"kept completions of {self.prompts} prompts"] if self.prompts else []
        parts += ["prompts of one kind from start to end"] if self.comparable else []
        return "; ".join(filter(None, parts)) or "one step"


@dataclass(frozen=True, slots=True)
class Detector:
    """`detect` is only called with a history that meets the needs."""

    name: str
    needs: Requirements
    detect: Callable[[RunHistory], HealthFinding | None]


def steps_of(groups: Sequence[Group]) -> tuple[int, int]:
    """Returns the first and the last step of some groups."""
    steps = [group[0].step for group in groups]
    return min(steps), max(steps)
