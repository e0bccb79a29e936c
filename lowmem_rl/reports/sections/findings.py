"""What the audit of a run found, as the page shows it: read from health.json and trusted in nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from lowmem_rl.reports.escape import one_line, shown
from lowmem_rl.reports.run_record import RunRecord, is_number, part, rows_in

SEVERITIES = ("critical", "warning", "note")


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """One thing that ails a run; the severity is one of ours, whatever the file says."""

    name: str
    severity: str
    when: str
    what: str
    cure: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Findings, the worst first, and what could not be judged."""

    step: int
    findings: tuple[ShownFinding, ...]
    not_judged: tuple[tuple[str, str], ...]


def audit_of(record: RunRecord) -> Audit | None:
    """Returns what an audit found, None where there was none."""
    step = record.health.get("step")
    if not is_number(step):
        return None
    unjudged = part(record.health, "not_judged").items()
    return Audit(
        int(step),
        tuple(map(_finding, rows_in(record.health, "findings"))),
        tuple((one_line(name, 40), one_line(needs, 200)) for name, needs in unjudged),
    )


def _finding(row: dict[str, object]) -> ShownFinding:
    severity = row.get("severity")
    return ShownFinding(
        one_line(row.get("name", "?"), 40),
        str(severity) if severity in SEVERITIES else SEVERITIES[-1],
        " · ".join(_when(row)),
        shown(row.get("what", ""), 1000),
        shown(row.get("cure", ""), 1000),
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
