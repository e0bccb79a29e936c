"""The audit: every detector on a history, at its end (`detect_all`) or after each of its steps (`audit`)."""

from collections.abc import Iterable, Mapping
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
    late_verdicts,
    learning_rate,
    length_drift,
    nan,
    sampler_mismatch,
    template_mismatch,
    truncation,
    updates_lost,
)
from lowmem_rl.health.detector import Detector, HealthFinding
from lowmem_rl.health.history import RunHistory

DETECTORS: tuple[Detector, ...] = (
    nan.DETECTOR,
    truncation.DETECTOR,
    dead_reward.DETECTOR,
    dead_groups.DETECTOR,
    gibberish.DETECTOR,
    entropy.DETECTOR,
    kl.DETECTOR,
    length_drift.EXPLOSION,
    length_drift.COLLAPSE,
    format_gain.DETECTOR,
    hacking.DETECTOR,
    sampler_mismatch.DETECTOR,
    template_mismatch.DETECTOR,
    late_verdicts.DETECTOR,
    input_agnostic.DETECTOR,
    learning_rate.TOO_HIGH,
    learning_rate.TOO_LOW,
    updates_lost.DETECTOR,
)
_DISCLAIMER = (
    "An audit of what the run wrote: likely causes with their confidence, not proof. No finding is no guarantee."
)


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The findings about a run, the worst first, and which detectors lacked evidence."""

    step: int
    findings: tuple[HealthFinding, ...]
    not_judged: Mapping[str, str]
    """By detector, the least evidence that it needs and the run does not hold."""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, as in health.json."""
        return {
            "kind": "audit",
            "step": self.step,
            "findings": [finding.to_json() for finding in self.findings],
            "not_judged": dict(self.not_judged),
        }

    def __str__(self) -> str:
        found = len(self.findings)
        counted = f"{found} finding{'s' if found > 1 else ''}" if found else "nothing found"
        lines = [f"audit of {self.step} steps: {counted}", *map(str, self.findings)]
        if self.not_judged:
            lines += ["not checked, too little evidence:"]
            lines += [f"  {name}: {needs}" for name, needs in self.not_judged.items()]
        return "\n".join([*lines, _DISCLAIMER])


def detect_all(history: RunHistory) -> tuple[HealthFinding, ...]:
    """Returns the findings at the end of a history, the worst first; to be called after each step."""
    if not history.rows:
        return ()
    found = (one.detect(one.needs.seen_in(history)) for one in DETECTORS if one.needs.met_by(history))
    return _sorted(finding for finding in found if finding is not None)


def audit(history: RunHistory) -> HealthReport:
    """Audits a whole run: what `detect_all` returns after each step, each name once, at its worst.

    A note that no longer holds is left out.
    """
    worst: dict[str, HealthFinding] = {}
    # The last one is needed too: the last evaluation follows the last row.
    for moment in (*(history.until(row["step"]) for row in history.rows), history.lasting()):
        now = {finding.name: finding for finding in detect_all(moment)}
        past = {name: replace(finding, lasts=False) for name, finding in worst.items()}
        worst = past | {name: _merged(past.get(name), finding) for name, finding in now.items()}
    missing = {d.name: str(d.needs) for d in DETECTORS if not history.rows or not d.needs.met_by(history)}
    reported = (finding for finding in worst.values() if finding.lasts or finding.level != "note")
    return HealthReport(history.step, _sorted(reported), MappingProxyType(missing))


def _merged(past: HealthFinding | None, now: HealthFinding) -> HealthFinding:
    """Returns the worse of two findings of one name, the later of equal ones, over the steps of both."""
    if past is None:
        return now
    worse = past if past.rank < now.rank else now
    return replace(worse, steps=(min(past.steps[0], now.steps[0]), max(past.steps[1], now.steps[1])), lasts=True)


def _sorted(findings: Iterable[HealthFinding]) -> tuple[HealthFinding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.rank, finding.steps)))
