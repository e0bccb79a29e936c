"""The findings of the audit, read from health.json without trust in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from lowmem_rl.finding import Finding
from lowmem_rl.reports.escape import one_line, shown
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import is_number, part, rows_in

_LEVELS = ("critical", "warning", "note")


@dataclass(frozen=True, slots=True)
class ShownFinding(Finding):
    """A finding as the page shows it; the level is always one of `_LEVELS`."""

    name: str
    when: str


@dataclass(frozen=True, slots=True)
class ShownAudit:
    """Findings, the worst first, and the detectors that lacked evidence, with what they need."""

    step: int
    findings: tuple[ShownFinding, ...]
    not_judged: tuple[tuple[str, str], ...]


def audit_of(record: RunRecord) -> ShownAudit | None:
    """Returns what an audit found, None if there was none."""
    step = record.health.get("step")
    if not is_number(step):
        return None
    unjudged = part(record.health, "not_judged").items()
    return ShownAudit(
        int(step),
        tuple(map(_finding, rows_in(record.health, "findings"))),
        tuple((one_line(name, 40), one_line(needs, 200)) for name, needs in unjudged),
    )


def _finding(row: dict[str, object]) -> ShownFinding:
    level = row.get("severity")
    return ShownFinding(
        str(level) if level in _LEVELS else _LEVELS[-1],
        shown(row.get("what", ""), 1000),
        shown(row.get("cure", ""), 1000),
        one_line(row.get("name", "?"), 40),
        " · ".join(_when(row)),
    )


def _when(row: dict[str, object]) -> Iterator[str]:
    steps = row.get("steps")
    if isinstance(steps, list) and len(steps) == 2:
        first, last = (one_line(step, 12) for step in steps)
        yield f"step {last}" if first == last else f"steps {first} to {last}"
    if row.get("lasts") is False:
        yield "over since"
    confidence = row.get("confidence")
    if is_number(confidence):
        yield f"confidence {confidence:.2f}"
