"""What this machine has measured, and how later predictions use it.

A row is one phase of one real step, predicted and measured. Tensors are arithmetic and stay as they are; calibrated is
the overhead around them (context, slack; on a CPU the program), by one factor for a card and a stack. The file is local
and may be edited, copied or torn: invalid rows are left out and reported once.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowmem_rl.memory.driver_overhead import CONTEXT, SLACK, capped_to_card, context
from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.memory.terms import Term
from lowmem_rl.memory.workload import Stack
from lowmem_rl.models.hardware import Card
from lowmem_rl.storage.cache import calibration_path as calibration_path
from lowmem_rl.storage.run_dir import append_row

CPU = "cpu"
_OVERHEAD = (CONTEXT, SLACK, context(None).name)
LEAST, MOST = 0.5, 3.0
"""Bounds of the factor. Beyond them another process or another formula was measured."""
_PLAUSIBLE = 5.0
"""Factor by which a phase may miss its prediction before its row counts as damaged."""
OVERHEAD_FORMULAS = 1
"""Increased when the formulas of context or slack change: older rows no longer compare."""
LARGEST_FILE_BYTES = 10_000_000

Bytes = Annotated[int, Field(ge=0, le=2**50, strict=True)]
Report = Callable[[str], None]


class Footprint(BaseModel):
    """Memory of one phase: tensors, the allocator's pool, and the process as the driver (on a CPU the kernel) sees it.

    The first two are None on a CPU: PyTorch counts them on a GPU only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    allocated_bytes: Bytes | None = None
    reserved_bytes: Bytes | None = None
    process_bytes: Bytes

    @model_validator(mode="after")
    def _contains(self) -> Self:
        sizes = (self.allocated_bytes, self.reserved_bytes, self.process_bytes)
        if (known := [size for size in sizes if size is not None]) != sorted(known):
            raise ValueError("tensors are within the pool, and the pool within the process")
        return self


class CalibrationRow(BaseModel):
    """One phase of one real step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    date: date
    source: Literal["measure", "first step"]
    card: Annotated[str, Field(min_length=1)]
    """Key of the card, or `cpu`."""
    stack: Stack
    phase: str
    predicted: Footprint
    measured: Footprint
    model: dict[str, Any]
    """The `ModelShape`."""
    workload: dict[str, Any]
    """With the lengths that were met, not the limits."""
    versions: dict[str, str | None]
    overhead_formulas: int = OVERHEAD_FORMULAS

    @model_validator(mode="after")
    def _is_plausible(self) -> Self:
        expected, found = self.predicted.process_bytes, self.measured.process_bytes
        if not expected / _PLAUSIBLE <= found <= expected * _PLAUSIBLE or not expected:
            raise ValueError(f"{found} bytes measured and {expected} predicted cannot be of one run")
        return self

    @property
    def expected_overhead(self) -> int:
        """Bytes around the tensors as predicted."""
        return self.predicted.process_bytes - (self.predicted.allocated_bytes or 0)

    @property
    def measured_overhead(self) -> int:
        """Bytes around the tensors as measured; if the tensors were not counted, around those predicted."""
        tensors = self.measured.allocated_bytes
        counted = self.predicted.allocated_bytes or 0 if tensors is None else tensors
        return max(self.measured.process_bytes - counted, 0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """By how much this card's overhead differs from the estimate's."""

    card: str
    stack: Stack
    factor: float
    rows: int
    latest: date

    def __str__(self) -> str:
        return f"calibrated on this {'CPU' if self.card == CPU else 'card'}, {self.latest.isoformat()}"

    def apply(self, estimate: MemoryEstimate, card: Card | None) -> MemoryEstimate:
        """Returns the estimate with its overhead as measured."""
        phases = {name: capped_to_card([*map(self._scaled, parts)], card) for name, parts in estimate.phases.items()}
        return replace(estimate, phases=phases)

    def _scaled(self, one: Term) -> Term:
        if one.name not in _OVERHEAD:
            return one
        expected = round(self.factor * one.expected_bytes)
        # A few measurements may raise a bound; they are too few to lower it.
        upper = max(one.upper_bytes, round(self.factor * one.upper_bytes))
        return one._replace(expected_bytes=expected, upper_bytes=upper, grade="measured here")


def footprint(parts: Sequence[Term]) -> Footprint:
    """Returns what the terms of a phase predict."""
    total = sum(one.expected_bytes for one in parts)
    overhead = {one.name: one.expected_bytes for one in parts if one.name in _OVERHEAD}
    allocated = total - sum(overhead.values())
    return Footprint(allocated_bytes=allocated, reserved_bytes=allocated + overhead.get(SLACK, 0), process_bytes=total)


def store(rows: Sequence[CalibrationRow], report: Report = lambda line: None) -> None:
    """Appends rows. A cache that cannot be written is reported and stops no run."""
    try:
        for row in rows:
            append_row(calibration_path(), row.model_dump(mode="json"))
    except OSError as error:
        report(f"{calibration_path()} cannot be written ({error.strerror or error}): nothing is remembered")


def calibration_for(card: Card | None, stack: Stack, report: Report = lambda line: None) -> Calibration | None:
    """Returns what was measured on this kind of card (None is a CPU), or None if nothing was."""
    wanted = (key := card.key if card else CPU, stack, OVERHEAD_FORMULAS)
    rows = [row for row in read_rows(report) if (row.card, row.stack, row.overhead_formulas) == wanted]
    expected = sum(row.expected_overhead for row in rows)
    if expected <= 0:
        return None
    factor = sum(row.measured_overhead for row in rows) / expected
    return Calibration(key, stack, min(max(factor, LEAST), MOST), len(rows), max(row.date for row in rows))


def read_rows(report: Report = lambda line: None) -> list[CalibrationRow]:
    """Returns the valid rows, and reports the others in one line."""
    path = calibration_path()
    try:
        if not path.exists():
            return []
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError(f"larger than {LARGEST_FILE_BYTES // 10**6} MB")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        report(f"{path} is ignored: {getattr(error, 'strerror', None) or error}")
        return []
    rows: list[CalibrationRow] = []
    damaged: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(CalibrationRow.model_validate(json.loads(line)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            damaged.append((number, f"{field}: {what}" if field else what))
        except (ValueError, RecursionError):
            damaged.append((number, "no JSON"))
    if damaged:
        number, why = damaged[0]
        report(f"{path}: {len(damaged)} of {len(lines)} lines are ignored, the first is line {number} ({why})")
    return rows
