"""What a symptom is, the least evidence it looks at, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lowmem_rl.finding import Finding
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import START

AGO = 200
"""Steps in which a metric that is written now and then must have stood."""

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""From worst to least: going on is wasted time; worth a look now; worth knowing."""


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
        return "\n".join([head, f"  {self.what}", f"  cure: {self.fix}"])


@dataclass(frozen=True, slots=True)
class Requirements:
    """The least evidence of which a symptom may say something."""

    rounds: int = 0
    """Rounds of sampling, each with a number for each of the metrics; 0 where one now and then is enough."""
    metrics: tuple[str, ...] = ()
    prompts: int = 0
    """Prompts whose completions were kept."""
    alike: bool = False
    """Early and late prompts must be of one kind."""
    evaluated: str = ""
    """What evaluations may hold in the metrics' stead."""

    def met_by(self, record: RunHistory) -> bool:
        return (
            len(record.rounds) >= self.rounds
            and (all(self._stands_in(record, name) for name in self.metrics) or self._is_evaluated(record))
            and (not self.prompts or len(record.recent_groups(self.prompts)) >= self.prompts)
            and (record.draws_alike or not self.alike)
        )

    def _stands_in(self, record: RunHistory, name: str) -> bool:
        if not self.rounds:
            return any(name in row for row in reversed(record.rows[-AGO:]))
        first, last = record.first(name, START), record.last(name, self.rounds)
        return len(first) >= min(START, self.rounds) and len(last) == self.rounds

    def _is_evaluated(self, record: RunHistory) -> bool:
        return bool(self.evaluated) and any(getattr(one, self.evaluated) is not None for one in record.evaluations)

    def __str__(self) -> str:
        parts = [" with ".join(filter(None, [self._rounds, ", ".join(self.metrics)]))]
        parts[0] += f", or an evaluation with {self.evaluated}" if self.evaluated else ""
        parts += [f"kept completions of {self.prompts} prompts"] if self.prompts else []
        parts += ["prompts of one kind all along"] if self.alike else []
        return "; ".join(filter(None, parts)) or "one step"

    @property
    def _rounds(self) -> str:
        return f"{self.rounds} rounds of sampling" if self.rounds else "steps" if self.metrics else ""


@dataclass(frozen=True, slots=True)
class Detector:
    """A name, what it needs, and a look at the record's end: `look` is asked only where the needs are met."""

    name: str
    needs: Requirements
    look: Callable[[RunHistory], HealthFinding | None]
