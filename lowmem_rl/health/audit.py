"""The audit: every symptom looks at the record, once at its end (`detect_all`) or after each of its steps (`audit`)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from lowmem_rl.health import (
    dead_groups,
    dead_reward,
    entropy,
    format_gain,
    gibberish,
    hacking,
    input_agnostic,
    kl,
    learning_rate,
    length_drift,
    nan,
    sampler_mismatch,
    template_mismatch,
    truncation,
)
from lowmem_rl.health.detector import SEVERITIES, Detector, HealthFinding
from lowmem_rl.health.history import RunHistory

DETECTORS: tuple[Detector, ...] = (
    nan.SYMPTOM,
    truncation.SYMPTOM,
    dead_reward.SYMPTOM,
    dead_groups.SYMPTOM,
    gibberish.SYMPTOM,
    entropy.SYMPTOM,
    kl.SYMPTOM,
    length_drift.EXPLOSION,
    length_drift.COLLAPSE,
    format_gain.SYMPTOM,
    hacking.SYMPTOM,
    sampler_mismatch.SYMPTOM,
    template_mismatch.SYMPTOM,
    input_agnostic.SYMPTOM,
    learning_rate.TOO_HIGH,
    learning_rate.TOO_LOW,
)
DISCLAIMER = (
    "An audit of what the run wrote down: names with their confidence, no proof, and silence is no certificate."
)


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What ails a run, the worst first, and what could not be looked at."""

    step: int
    findings: tuple[HealthFinding, ...]
    not_judged: Mapping[str, str]
    """By symptom, the least evidence that it needs and the run does not hold."""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "audit",
            "step": self.step,
            "findings": [finding.to_json() for finding in self.findings],
            "not_judged": dict(self.not_judged),
        }

    def __str__(self) -> str:
        lines = [f"audit of {self.step} steps: {_counted(len(self.findings))}"]
        lines += map(str, self.findings)
        if self.not_judged:
            lines += ["not judged, for want of evidence:"]
            lines += [f"  {name}: {needs}" for name, needs in self.not_judged.items()]
        return "\n".join([*lines, DISCLAIMER])


def detect_all(record: RunHistory) -> tuple[HealthFinding, ...]:
    """Returns what ails a run now, the worst first; meant to be asked after each step."""
    if not record.rows:
        return ()
    found = (symptom.look(record) for symptom in DETECTORS if symptom.needs.met_by(record))
    return _sorted(finding for finding in found if finding is not None)


def audit(record: RunHistory) -> HealthReport:
    """Audits a whole run: what `detect_all` would have said after each step, each name once, at its worst.

    A note that no longer holds is left out.
    """
    worst: dict[str, HealthFinding] = {}
    for moment in _moments(record):
        now = {finding.name: finding for finding in detect_all(moment)}
        past = {name: replace(finding, lasts=False) for name, finding in worst.items()}
        worst = past | {name: _merged(past.get(name), finding) for name, finding in now.items()}
    missing = {s.name: str(s.needs) for s in DETECTORS if not record.rows or not s.needs.met_by(record)}
    told = (finding for finding in worst.values() if finding.lasts or finding.level != "note")
    return HealthReport(record.step, _sorted(told), MappingProxyType(missing))


def _moments(record: RunHistory) -> Iterator[RunHistory]:
    """Yields what counted after each row, then all that stands in the end: the last evaluation follows the last row."""
    for row in record.rows:
        yield record.until(row["step"])
    yield record.lasting()


def _merged(past: HealthFinding | None, now: HealthFinding) -> HealthFinding:
    """Returns the worse of two findings of one name, the later where they are alike, over the steps of both."""
    if past is None:
        return now
    graver = past if SEVERITIES.index(past.level) < SEVERITIES.index(now.level) else now
    return replace(graver, steps=(min(past.steps[0], now.steps[0]), max(past.steps[1], now.steps[1])), lasts=True)


def _sorted(findings: Iterable[HealthFinding]) -> tuple[HealthFinding, ...]:
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.level), finding.steps)))


def _counted(findings: int) -> str:
    return "nothing found" if not findings else f"{findings} finding{'s' if findings > 1 else ''}"
