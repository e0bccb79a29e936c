"""Where the time of a run went: by phase of the step, and evaluations apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from lowmem_rl.reports.escape import Fact
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number, numbers, part

PHASES = {
    "rollout": "sampling completions",
    "scoring": "rewards",
    "logprobs": "advantages, and log-probs of the base model where the loss needs them",
    "update": "forward and backward",
    "optimizer": "clipping and stepping",
    "other": "data, batching, bookkeeping",
}
"""Phases of a step, as metric rows name them with `_s` behind."""
EVALUATION = ("evaluation", "held-out examples, between steps")


@dataclass(frozen=True, slots=True)
class TimeShare:
    """One part of the time; where its piece of the bar begins and how long it is, in percent of the whole."""

    name: str
    about: str
    seconds: str
    share: str
    begin: float
    length: float


@dataclass(frozen=True, slots=True)
class TimeSection:
    """The parts, where rows tell them apart, and what else is known."""

    parts: tuple[TimeShare, ...]
    facts: tuple[Fact, ...]


def time_of(record: RunRecord) -> TimeSection:
    """Returns where a run's time went, as far as it was recorded."""
    return TimeSection(tuple(_parts(record)), tuple(_facts(record)))


def _parts(record: RunRecord) -> Iterator[TimeShare]:
    spent = {name: _sum(record, f"{name}_s") for name in PHASES}
    if not any(spent.values()):
        return
    named = PHASES | dict([EVALUATION])
    spent |= {EVALUATION[0]: sum(_evaluations(record))}
    whole, begin = sum(spent.values()), 0.0
    for name, seconds in spent.items():
        length = 100 * seconds / whole
        yield TimeShare(name, named[name], clock(seconds), f"{length:.1f} %", begin, length)
        begin += length


def _sum(record: RunRecord, key: str) -> float:
    return sum(number(row, key) or 0.0 for row in record.metrics)


def _evaluations(record: RunRecord) -> list[float]:
    return [seconds for e in record.evaluations if (seconds := number(e.result, "seconds")) is not None]


def _facts(record: RunRecord) -> Iterator[Fact]:
    steps = [seconds for row in record.metrics if (seconds := number(row, "step_s")) is not None]
    rates = [rate for row in record.metrics if (rate := number(row, "completion_tokens_per_s")) is not None]
    evaluations = _evaluations(record)
    if steps:
        yield f"training, {_counted(len(steps), 'step')}", clock(sum(steps))
        yield "a step, median", f"{median(steps):.2f} s"
    predicted = numbers(part(record.estimate, "step_seconds"))
    if {"low", "high"} <= predicted.keys():
        yield "a step, predicted", f"{predicted['low']:.1f} to {predicted['high']:.1f} s"
    if rates:
        yield "completion tokens a second, median", f"{median(rates):,.0f}"
    if evaluations:
        yield _counted(len(evaluations), "evaluation"), clock(sum(evaluations))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """Returns a time as a person reads it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
