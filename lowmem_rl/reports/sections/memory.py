"""Memory by phase: predicted, and next to it measured, if it was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lowmem_rl.reports.escape import Fact, one_line
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import is_number, numbers, part
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class MemoryPhase:
    """One phase; the bar's length and the mark are shares of the longest, in percent."""

    name: str
    predicted: str
    measured: str
    length: float
    mark: float | None
    terms: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class MemorySection:
    """The phases, and how they were measured."""

    phases: tuple[MemoryPhase, ...]
    facts: tuple[Fact, ...]
    note: str


def memory_of(record: RunRecord) -> MemorySection | None:
    """Returns predictions with measurements, None if nothing was predicted."""
    predicted = {name: found for name, terms in part(record.estimate, "phases").items() if (found := numbers(terms))}
    if not predicted:
        return None
    # Of the process, as the driver (on a CPU the kernel) counts.
    phases = part(record.peak, "phases")
    measured = {name: size for name in phases if is_number(size := part(phases, name).get("process_bytes"))}
    totals = [sum(terms.values()) for terms in predicted.values()]
    scale = max(*totals, *measured.values(), record.peak_bytes or 0, 1)
    shown = tuple(_phase(name, terms, measured.get(name), scale) for name, terms in predicted.items())
    return MemorySection(shown, tuple(_facts(record)), _note(record, measured))


def _phase(name: str, terms: Mapping[str, float], measured: float | None, scale: float) -> MemoryPhase:
    total = sum(terms.values())
    return MemoryPhase(
        one_line(name),
        predicted=_gib(total),
        measured="not measured" if measured is None else _gib(measured),
        length=100 * total / scale,
        mark=None if measured is None else 100 * measured / scale,
        terms=tuple((one_line(term), _gib(size)) for term, size in sorted(terms.items(), key=lambda term: -term[1])),
    )


def _facts(record: RunRecord) -> Iterator[Fact]:
    peak = numbers(part(record.estimate, "peak_bytes"))
    if {"expected", "upper"} <= peak.keys():
        yield "predicted peak", f"{_gib(peak['expected'])}, up to {_gib(peak['upper'])}"
    if record.peak_bytes is not None:
        yield "measured peak", _gib(record.peak_bytes)
    if is_number(record.estimate.get("budget_bytes")):
        yield "budget", _gib(record.estimate["budget_bytes"])


def _note(record: RunRecord, measured: Mapping[str, float]) -> str:
    """Returns what bars and lines are, and how far the measured step was from the longest one possible."""
    bars = "Bars are predictions for the longest possible prompts and completions; open one for its terms."
    if not measured:
        return f"{bars} Phases were not measured separately here: the measured peak is the highest of all of them."
    lengths, step = [], numbers(part(record.peak, "metered_step"))
    for text in ("prompt", "completion"):
        limit, tokens = record.setting(f"grpo.max_{text}_tokens"), step.get(f"{text}_tokens")
        if tokens is not None and is_number(limit):
            lengths.append(f"{tokens:,} of {limit:,} tokens in the longest {text}")
    remark = f" ({', '.join(lengths)})" if lengths else ""
    return f"{bars} Lines are measurements of the process: loading, first evaluation, first step{remark}."


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
