"""Memory, predicted and measured, phase by phase: measured stands beside predicted only where it was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lowmem_rl.reports.escape import Fact, one_line
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import is_number, numbers, part
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase; the bar's length and the mark are shares of the longest, in percent."""

    name: str
    predicted: str
    measured: str
    length: float
    mark: float | None
    terms: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class MemorySection:
    """The phases with what is to be known of how they were measured."""

    phases: tuple[Phase, ...]
    facts: tuple[Fact, ...]
    note: str


def memory_of(record: RunRecord) -> MemorySection | None:
    """Returns predictions beside measurements, None where nothing was predicted."""
    predicted = {name: found for name, terms in part(record.estimate, "phases").items() if (found := numbers(terms))}
    if not predicted:
        return None
    measured = _measured(record)
    totals = {name: sum(terms.values()) for name, terms in predicted.items()}
    scale = max(*totals.values(), *measured.values(), record.peak_bytes or 0, 1)
    phases = tuple(_phase(name, terms, measured.get(name), scale) for name, terms in predicted.items())
    return MemorySection(phases, tuple(_facts(record)), " ".join(_notes(record, measured)))


def _measured(record: RunRecord) -> dict[str, float]:
    """Returns bytes of the process by phase, as the driver (on a CPU the kernel) saw them."""
    phases = part(record.peak, "phases")
    sizes = {name: found.get("process_bytes") for name, found in phases.items() if isinstance(found, dict)}
    return {name: size for name, size in sizes.items() if is_number(size)}


def _phase(name: str, terms: Mapping[str, float], measured: float | None, scale: float) -> Phase:
    total = sum(terms.values())
    parts = tuple((one_line(term), gib(size)) for term, size in sorted(terms.items(), key=lambda term: -term[1]))
    found = "not measured" if measured is None else gib(measured)
    mark = None if measured is None else 100 * measured / scale
    return Phase(one_line(name), gib(total), found, 100 * total / scale, mark, parts)


def _facts(record: RunRecord) -> Iterator[Fact]:
    peak = numbers(part(record.estimate, "peak_bytes"))
    if {"expected", "upper"} <= peak.keys():
        yield "predicted peak", f"{gib(peak['expected'])}, up to {gib(peak['upper'])}"
    if record.peak_bytes is not None:
        yield "measured peak", gib(record.peak_bytes)
    if is_number(record.estimate.get("budget_bytes")):
        yield "budget", gib(record.estimate["budget_bytes"])


def _notes(record: RunRecord, measured: Mapping[str, float]) -> Iterator[str]:
    yield "Bars are what was expected for the longest prompts and completions there may be; open one for its terms."
    if not measured:
        yield "Phases were not measured apart here: the measured peak is the highest of all of them."
        return
    yield f"Lines are what the process held: loading, the first evaluation, and the first step{_lengths(record)}."


def _lengths(record: RunRecord) -> str:
    """Says how far the metered step was from the longest there may be."""
    met = numbers(part(record.peak, "metered_step"))
    parts = [
        f"{met[f'{part}_tokens']:,} of {limit:,} tokens in the longest {part}"
        for part in ("prompt", "completion")
        if f"{part}_tokens" in met and is_number(limit := record.setting(f"grpo.max_{part}_tokens"))
    ]
    return f" ({', '.join(parts)})" if parts else ""


def gib(size: float) -> str:
    """Returns bytes as a person reads them."""
    return f"{size / GIB:.2f} GiB"
