"""The estimate against measured rows: errors by stack, card and source, and its verdicts on runs that failed.

An error is predicted over measured, less one, of the expected value; below zero is an under-prediction.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl.memory.driver_overhead import CONTEXT
from lowmem_rl.memory.estimate import UNVALIDATED, MemoryEstimate, Verdict, estimate
from lowmem_rl.memory.measured_rows import FIELDS, MEASURED, MeasuredRow, card_of, workload_of_row
from lowmem_rl.models.catalogue import find_shape
from lowmem_rl.models.hardware import Card

TOLERATED_UNDER = 0.10
"""Under-predictions beyond this are listed."""
VERDICTS: tuple[Verdict, ...] = ("fits", "tight", "does-not-fit")
_UNKNOWN_CARD = Card("unknown", "", 2**50, (8, 0), "the row does not name one: a card from Ampere on, without a limit")


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row with what was predicted for it, or why nothing was."""

    row: MeasuredRow
    predicted: dict[str, int] | None = None
    """Bytes by what was measured (`allocated`, `reserved`, `process`, `load`), and `upper` of the process."""
    verdict: str | None = None
    """Against the card, if the row names one."""
    inside_bounds: bool | None = None
    """For a row whose lengths are limits: its peak is between no tokens and the limit's upper value."""
    left_out: str | None = None

    def error(self, measured: str) -> float | None:
        """Returns the relative error of one measurement, or None without one."""
        truth = getattr(self.row, FIELDS[measured])
        if self.predicted is None or truth is None or (self.row.lengths_at_most and measured != "load"):
            return None
        difference, half = self.predicted[measured] - truth, self.row.rounded_to_bytes / 2
        beyond = max(abs(difference) - half, 0)
        return float(beyond / truth if difference > 0 else -beyond / truth)

    @property
    def errors(self) -> dict[str, float]:
        """The errors that there are, by measurement."""
        return {name: error for name in MEASURED if (error := self.error(name)) is not None}

    @property
    def has_peak_error(self) -> bool:
        """A peak was measured and can be compared: a failed run, a limit or the load alone says nothing of it."""
        return any(name != "load" for name in self.errors)

    @property
    def is_above_upper(self) -> bool:
        """The process took more than the upper value, beyond what the source rounds."""
        taken, upper = self.row.process_bytes, (self.predicted or {}).get("upper")
        if taken is None or upper is None or self.row.lengths_at_most:
            return False
        return taken - self.row.rounded_to_bytes / 2 > upper

    def to_json(self) -> dict[str, Any]:
        """Returns the row as it was, with `predicted` or `left_out`."""
        content = self.row.model_dump(exclude_unset=True)
        if self.predicted is None:
            return content | {"left_out": self.left_out}
        errors = {name: round(error, 4) for name, error in self.errors.items()}
        bounds = {} if self.inside_bounds is None else {"inside_bounds": self.inside_bounds}
        return content | {"predicted": {**self.predicted, "verdict": self.verdict, "errors": errors, **bounds}}


@dataclass(frozen=True, slots=True)
class AccuracyScore:
    """All rows and their summary."""

    rows: tuple[ScoredRow, ...]

    @property
    def scored(self) -> tuple[ScoredRow, ...]:
        return tuple(one for one in self.rows if one.predicted is not None)

    @property
    def one_length(self) -> tuple[ScoredRow, ...]:
        """Rows whose lengths do not vary: what varying ones leave in the pool depends on their order."""
        return tuple(one for one in self.scored if not one.row.is_varying)

    @property
    def left_out(self) -> dict[str, str]:
        return {one.row.id: one.left_out or "" for one in self.rows if one.predicted is None}

    @property
    def summary(self) -> dict[str, Any]:
        """Errors in all and by group, verdicts on failed runs, rows left out and why."""
        failed = [one for one in self.scored if one.row.oom]
        bounded = [one for one in self.scored if one.inside_bounds is not None]
        measured = {(one.row.stack, one.row.loss, one.row.method) for one in self.scored if one.has_peak_error}
        return {
            "rows": len(self.rows),
            "scored": len(self.scored),
            "left_out": self.left_out,
            "errors": errors(self.one_length),
            "varying": errors([one for one in self.scored if one.row.is_varying]),
            "by_stack": self._by(lambda one: f"{one.row.stack} {one.row.loss} {one.row.method}"),
            "by_card": self._by(lambda one: (card_of(one.row.gpu) or _UNKNOWN_CARD).key),
            "by_source": self._by(lambda one: one.row.source),
            "load_alone": [one.row.id for one in self.scored if [*one.errors] == ["load"]],
            "rounded": [one.row.id for one in self.scored if one.row.rounded_to_bytes],
            "verdicts": self._verdicts(),
            "above_upper": [one.row.id for one in self.scored if one.is_above_upper],
            "out_of_memory": {"rows": len(failed), "called_fits": [x.row.id for x in failed if x.verdict == "fits"]},
            "bounded": {"rows": len(bounded), "outside": [x.row.id for x in bounded if not x.inside_bounds]},
            "unvalidated": [] if ("unsloth", "grpo", "qlora") in measured else [UNVALIDATED],
        }

    def _verdicts(self) -> dict[str, dict[str, list[str]]]:
        """Returns the rows by the end of the run and by verdict, if card and lengths are given."""
        known = [one for one in self.scored if one.verdict and not one.row.lengths_at_most]
        return {
            end: {name: [x.row.id for x in known if (x.row.oom, x.verdict) == (oom, name)] for name in VERDICTS}
            for end, oom in (("completed", False), ("out of memory", True))
        }

    def _by(self, group: Callable[[ScoredRow], str]) -> dict[str, Any]:
        names = sorted({group(one) for one in self.one_length})
        return {name: errors([one for one in self.one_length if group(one) == name]) for name in names}

    def to_json(self) -> dict[str, Any]:
        return {"rows": [one.to_json() for one in self.rows], "summary": self.summary}


def score(rows: Iterable[MeasuredRow]) -> AccuracyScore:
    """Returns every row with a prediction, or with the reason why there is none."""
    return AccuracyScore(tuple(map(_score, rows)))


def errors(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Returns, for each kind of measurement: rows, mean absolute and worst error, under-predictions beyond a tenth."""
    summary = {}
    for measured in MEASURED:
        if found := {one.row.id: error for one in rows if (error := one.error(measured)) is not None}:
            worst, error = max(found.items(), key=lambda item: abs(item[1]))
            summary[measured] = {
                "rows": len(found),
                "mean_error": round(fmean(map(abs, found.values())), 4),
                "worst_error": round(error, 4),
                "worst_row": worst,
                "under_predicted": sorted(id for id, error in found.items() if error < -TOLERATED_UNDER),
            }
    return summary


def _score(row: MeasuredRow) -> ScoredRow:
    if row.left_out:
        return ScoredRow(row, left_out=row.left_out)
    if not row.oom and not any(getattr(row, field) for field in FIELDS.values()):
        return ScoredRow(row, left_out="nothing was measured")
    if (shape := find_shape(row.model)) is None:
        return ScoredRow(row, left_out=f"the shape of {row.model} is not known")
    workload, card, inside = workload_of_row(row), card_of(row.gpu), None
    try:
        found = estimate(workload, shape, card or _UNKNOWN_CARD)
    except ConfigError as error:  # an adapter in layers that have no formula
        return ScoredRow(row, left_out=str(error).rstrip("."))
    peak = row.peak_reserved_bytes or row.process_bytes
    if row.lengths_at_most and peak is not None:
        shortest = replace(workload, micro_batch=1, prompt_tokens=1, completion_tokens=1)
        least = (1 - TOLERATED_UNDER) * estimate(shortest, shape, card or _UNKNOWN_CARD).reserved_bytes
        inside = _is_inside(row, peak, least, found.upper_bytes)
    verdict = found.verdict(card.offered_bytes) if card else None
    return ScoredRow(row, predicted=_predicted(found), verdict=verdict, inside_bounds=inside)


def _is_inside(row: MeasuredRow, peak: int, least: float, most: int) -> bool:
    """Returns whether a peak that its source rounds can be between two sizes."""
    half = row.rounded_to_bytes / 2
    return least - half <= peak <= most + half


def _predicted(found: MemoryEstimate) -> dict[str, int]:
    load = sum(one.expected_bytes for one in found.phases["load"] if one.name != CONTEXT)
    return {
        "allocated": found.allocated_bytes,
        "reserved": found.reserved_bytes,
        "process": found.expected_bytes,
        "load": load,
        "upper": found.upper_bytes,
    }
