"""Did it learn: one paragraph with the result of the evaluations and the reasons to doubt it."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.reports.sections.findings import audit_of
from lowmem_rl.reports.sections.results import beyond_controls, other_tasks
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_reader import number, numbers, part
from lowmem_rl.units import GIB

Tone = Literal["good", "bad", "open"]
_MUCH_TRUNCATED = 0.1
_FEW_INFORMATIVE = 0.2
_LAST_STEPS = 20
"""Steps whose mean counts as the end of a run: single steps are noisy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in a few words, and the sentences that explain it."""

    headline: str
    tone: Tone
    sentences: tuple[str, ...]

    @property
    def paragraph(self) -> str:
        return " ".join(self.sentences)


def verdict_of(record: RunRecord) -> Verdict:
    """Returns what can be concluded from a run directory."""
    gain = strict = None
    if record.before and record.latest:
        gain = paired_difference(record.before, record.latest, LENIENT)
        strict = paired_difference(record.before, record.latest, STRICT)
    headline, tone = _headline(record, gain)
    sentences = (
        *_gain(record, gain),
        *_format(gain, strict),
        *_controls(record, gain),
        *_better_before(record),
        *_elsewhere(record),
        *_end(record),
        *_doubts(record),
        *_findings(record),
        *_memory(record),
    )
    return Verdict(headline, tone, sentences)


def _headline(record: RunRecord, gain: PairedDifference | None) -> tuple[str, Tone]:
    if gain is None:
        return ("Whether it learned is unknown" if record.has_ended else "Too early to say", "open")
    so_far = "" if record.is_finished else f" by step {record.latest.step if record.latest else 0}"
    if not gain.is_distinguishable:
        return f"No significant difference{so_far}", "open"
    return (f"It learned{so_far}", "good") if gain.gain > 0 else (f"It got worse{so_far}", "bad")


def _gain(record: RunRecord, gain: PairedDifference | None) -> Iterator[str]:
    before, latest = record.before, record.latest
    if before is None or latest is None:
        yield _single(before or latest)
        return
    if gain is None:
        first, last = (percent(number(evaluation.result, "pass_at_1")) for evaluation in (before, latest))
        yield (
            f"{first} were right before training and {last} at step {latest.step}; the difference cannot be tested: "
            "the two have no item in common, or their rows in eval/ are missing."
        )
        return
    both = before.shares(LENIENT).keys() & latest.shares(LENIENT).keys()
    first, last = (percent(fmean(one.shares(LENIENT)[key] for key in both)) for one in (before, latest))
    yield (
        f"Of {gain.num_items} held-out items of {one_line(latest.result.get('task'), 60)}, {first} were right before "
        f"training and {last} at step {latest.step} (greedy, in any format): {points(gain)}, {p_text(gain.p_value)}; "
        f"{gain.won} became right, {gain.lost} wrong."
    )
    if not gain.is_distinguishable:
        yield "Chance alone can explain such a difference; more items (eval.examples) would show smaller ones."


def _single(found: EvalRecord | None) -> str:
    if found is None:
        return "There is no evaluation yet."
    share, total = percent(number(found.result, "pass_at_1")), one_line(found.result.get("num_examples", "?"), 12)
    missing = "none after a step of training" if found.name == "before" else "none before training on the same items"
    return f"{share} of {total} held-out items were right at step {found.step}; there is {missing} to compare it with."


def _format(gain: PairedDifference | None, strict: PairedDifference | None) -> Iterator[str]:
    """A learned format is not learned reasoning."""
    if gain and strict and strict.is_distinguishable and strict.gain > 0 and gain.gain < strict.gain / 2:
        yield (
            f"In the requested format the gain is {100 * strict.gain:+.1f} points: "
            "most of that is the format, which was learned, and not the answer."
        )


def _controls(record: RunRecord, gain: PairedDifference | None) -> Iterator[str]:
    """A gain that comes with any reward is not an effect of this one."""
    for name, beyond in beyond_controls(record):
        if gain and gain.is_distinguishable and gain.gain > 0 and not beyond.is_distinguishable:
            yield (
                f"Its {name} control is not distinguishable from it ({points(beyond)}): "
                "the gain may not need right answers."
            )


def _better_before(record: RunRecord) -> Iterator[str]:
    latest = record.latest
    if latest is None:
        return
    best = max(record.evaluations, key=lambda evaluation: number(evaluation.result, "pass_at_1") or 0.0)
    ahead = paired_difference(latest, best, LENIENT)
    if best.step not in (0, latest.step) and ahead and ahead.is_distinguishable:
        yield f"At step {best.step} it was better, by {points(ahead)} on {ahead.num_items} shared items."


def _elsewhere(record: RunRecord) -> Iterator[str]:
    for name, gain in other_tasks(record):
        if gain.is_distinguishable:
            yield f"On {name}, which it was not trained on: {points(gain)}, {p_text(gain.p_value)}."


def _end(record: RunRecord) -> Iterator[str]:
    last = f"step {record.last_step} of {record.planned_steps or '?'}"
    if not record.metrics:
        yield "No step of training is recorded."
    elif record.has_ended and not record.is_finished:
        yield f"The run ended at {last}, before its last evaluation."
    elif not record.is_finished:
        yield f"The run is at {last}: it is still running, or was killed."


def _doubts(record: RunRecord) -> Iterator[str]:
    truncated, informative = (
        [value for row in record.metrics[-_LAST_STEPS:] if (value := number(row, key)) is not None]
        for key in ("truncated_share", "informative_share")
    )
    if truncated and (share := fmean(truncated)) > _MUCH_TRUNCATED:
        yield (
            f"{percent(share)} of the late completions were cut off at grpo.max_completion_tokens: "
            "what they would have answered is unknown."
        )
    if informative and (share := fmean(informative)) < _FEW_INFORMATIVE:
        yield f"Only {percent(share)} of the late groups were informative; the others carry no signal."


def _findings(record: RunRecord) -> Iterator[str]:
    audit = audit_of(record)
    serious = [f"{one.name} ({one.level})" for one in audit.findings if one.level != "note"] if audit else []
    if serious:
        yield f"The audit found {', '.join(serious)}."


def _memory(record: RunRecord) -> Iterator[str]:
    if record.peak_bytes is None:
        return
    predicted, remark = numbers(part(record.estimate, "peak_bytes")), ""
    if {"expected", "upper"} <= predicted.keys():
        remark = f"; {predicted['expected'] / GIB:.2f} to {predicted['upper'] / GIB:.2f} GiB were predicted"
    yield f"Its peak memory was {record.peak_bytes / GIB:.2f} GiB{remark}."
