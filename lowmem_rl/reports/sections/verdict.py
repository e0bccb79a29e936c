"""Did it learn, in one paragraph: what the evaluations allow to be said, and what casts doubt on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Literal

from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.reports.sections.findings import audit_of
from lowmem_rl.reports.sections.results import controls_beside, other_tasks
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_reader import is_number, number, numbers, part
from lowmem_rl.units import GIB

Tone = Literal["good", "bad", "open"]
MUCH_TRUNCATED = 0.1
FEW_INFORMATIVE = 0.2
LAST_STEPS = 20
"""Steps over whose mean the end of a run is judged: single steps are noisy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in a few words, and the paragraph that says why."""

    headline: str
    tone: Tone
    sentences: tuple[str, ...]

    @property
    def paragraph(self) -> str:
        return " ".join(self.sentences)


def verdict_of(record: RunRecord) -> Verdict:
    """Returns what a run's directory allows to be said."""
    gain = strict = None
    if record.before and record.latest:
        gain = paired_difference(record.before, record.latest, LENIENT)
        strict = paired_difference(record.before, record.latest, STRICT)
    headline, tone = _headline(record, gain)
    told = (_gain(record, gain), _form(gain, strict), _controls(record, gain), _best(record), _elsewhere(record))
    parts = (*told, _end(record))
    return Verdict(headline, tone, tuple(chain(*parts, _doubts(record), _findings(record), _memory(record))))


def _headline(record: RunRecord, gain: PairedDifference | None) -> tuple[str, Tone]:
    if gain is None:
        return ("Whether it learned is open" if record.has_ended else "Too early to tell", "open")
    so_far = "" if record.is_finished else f" by step {record.latest.step if record.latest else 0}"
    if not gain.is_distinguishable:
        return f"No difference can be told{so_far}", "open"
    return (f"It learned{so_far}", "good") if gain.gain > 0 else (f"It got worse{so_far}", "bad")


def _gain(record: RunRecord, gain: PairedDifference | None) -> Iterator[str]:
    before, latest = record.before, record.latest
    if before is None or latest is None:
        yield from _single(before or latest)
        return
    if gain is None:
        first, last = (percent(number(evaluation.result, "pass_at_1")) for evaluation in (before, latest))
        yield (
            f"{first} were right before training and {last} at step {latest.step}; what chance does cannot be "
            "told: the two have no item in common, or their rows in eval/ are gone."
        )
        return
    shares = [_mean_of_both(evaluation, before, latest) for evaluation in (before, latest)]
    where = f"{gain.num_items} held-out items of {one_line(latest.result.get('task'), 60)}"
    yield (
        f"Of {where}, {percent(shares[0])} were right before training and {percent(shares[1])} at step {latest.step} "
        f"(greedy, the answer wherever it stands): {points(gain)}, {p_text(gain.p_value)}; "
        f"{gain.won} became right, {gain.lost} wrong."
    )
    if not gain.is_distinguishable:
        yield "Chance alone makes such differences; more items (eval.examples) would show smaller ones."


def _single(found: EvalRecord | None) -> Iterator[str]:
    """Says what one evaluation says, where there is nothing to compare it with."""
    if found is None:
        yield "There is no evaluation yet."
        return
    share, total = percent(number(found.result, "pass_at_1")), one_line(found.result.get("num_examples", "?"), 12)
    missing = "none behind a step of training" if found.name == "before" else "none before training on the same items"
    yield f"{share} of {total} held-out items were right at step {found.step}; there is {missing} to compare it with."


def _mean_of_both(evaluation: EvalRecord, first: EvalRecord, second: EvalRecord) -> float:
    shares = evaluation.shares(LENIENT)
    return fmean(shares[key] for key in first.shares(LENIENT).keys() & second.shares(LENIENT).keys())


def _form(gain: PairedDifference | None, strict: PairedDifference | None) -> Iterator[str]:
    """A learnt format is not learnt reasoning."""
    if gain and strict and strict.is_distinguishable and strict.gain > 0 and gain.gain < strict.gain / 2:
        yield (
            f"In the asked form the gain is {100 * strict.gain:+.1f} points: "
            "most of that is the form, which was learnt, and not the answer."
        )


def _controls(record: RunRecord, gain: PairedDifference | None) -> Iterator[str]:
    """What comes with any reward is no effect of this one."""
    for name, beyond in controls_beside(record):
        if gain and gain.is_distinguishable and gain.gain > 0 and not beyond.is_distinguishable:
            yield f"Its {name} control cannot be told from it ({points(beyond)}): the gain may need no right answers."


def _best(record: RunRecord) -> Iterator[str]:
    latest = record.latest
    if latest is None:
        return
    best = max(record.evaluations, key=lambda evaluation: number(evaluation.result, "pass_at_1") or 0.0)
    told = paired_difference(latest, best, LENIENT)
    if best.step not in (0, latest.step) and told and told.is_distinguishable:
        yield f"At step {best.step} it was better, by {points(told)} on {told.num_items} shared items."


def _elsewhere(record: RunRecord) -> Iterator[str]:
    for name, gain in other_tasks(record):
        if gain.is_distinguishable:
            yield f"On {name}, which it was not trained on: {points(gain)}, {p_text(gain.p_value)}."


def _end(record: RunRecord) -> Iterator[str]:
    where = f"step {record.last_step} of {record.planned_steps or '?'}"
    if not record.metrics:
        yield "No step of training is recorded."
    elif record.has_ended and not record.is_finished:
        yield f"The run ended at {where}, before its last evaluation."
    elif not record.is_finished:
        yield f"The run is at {where}: it is still going, or was killed."


def _findings(record: RunRecord) -> Iterator[str]:
    audit = audit_of(record)
    grave = [f"{one.name} ({one.level})" for one in audit.findings if one.level != "note"] if audit else []
    if grave:
        yield f"The audit names {', '.join(grave)}."


def _doubts(record: RunRecord) -> Iterator[str]:
    truncated, informative = (_late_mean(record, key) for key in ("truncated_share", "informative_share"))
    if truncated is not None and truncated > MUCH_TRUNCATED:
        yield (
            f"{percent(truncated)} of the late completions were cut off at grpo.max_completion_tokens: "
            "what they would have answered is unknown."
        )
    if informative is not None and informative < FEW_INFORMATIVE:
        yield f"Only {percent(informative)} of the late groups carried signal; the others taught nothing."


def _late_mean(record: RunRecord, key: str) -> float | None:
    values = [row[key] for row in record.metrics[-LAST_STEPS:] if is_number(row.get(key))]
    return fmean(values) if values else None


def _memory(record: RunRecord) -> Iterator[str]:
    predicted = numbers(part(record.estimate, "peak_bytes"))
    if record.peak_bytes is None:
        return
    said = ""
    if {"expected", "upper"} <= predicted.keys():
        said = f"; {predicted['expected'] / GIB:.2f} to {predicted['upper'] / GIB:.2f} GiB were predicted"
    yield f"It held {record.peak_bytes / GIB:.2f} GiB at most{said}."
