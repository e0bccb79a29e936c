"""How a run spent its time: by phase of the step, and evaluations."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from lowmem_rl.reports.escape import Fact
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number, numbers, part

_PHASES = {
    "rollout": "sampling completions",
    "scoring": "rewards",
    "logprobs": "advantages, and log-probs of the base model if the loss needs them",
    "update": "forward and backward",
    "optimizer": "clipping and optimizer step",
    "other": "batching, bookkeeping",
}
"""Phases of a step; metric rows have their seconds as `rollout_s` and so on."""
_EVALUATION = ("evaluation", "held-out examples, between steps")


@dataclass(frozen=True, slots=True)
class TimeShare:
    """One part of the time, with the start and the length of its bar in percent of the whole."""

    name: str
    about: str
    seconds: str
    share: str
    begin: float
    length: float


@dataclass(frozen=True, slots=True)
class TimeSection:
    """The parts, if rows have them, and further facts."""

    parts: tuple[TimeShare, ...]
    facts: tuple[Fact, ...]


def time_of(record: RunRecord) -> TimeSection:
    """Returns how a run spent its time, as far as it was recorded."""
    evaluations = [s for one in record.evaluations if (s := number(one.result, "seconds")) is not None]
    return TimeSection(tuple(_parts(record, evaluations)), tuple(_facts(record, evaluations)))


def _parts(record: RunRecord, evaluations: list[float]) -> Iterator[TimeShare]:
    spent = {name: sum(_values(record, f"{name}_s")) for name in _PHASES}
    if not any(spent.values()):
        return
    about = _PHASES | dict([_EVALUATION])
    spent |= {_EVALUATION[0]: sum(evaluations)}
    whole, begin = sum(spent.values()), 0.0
    for name, seconds in spent.items():
        length = 100 * seconds / whole
        yield TimeShare(name, about[name], _span(seconds), f"{length:.1f} %", begin, length)
        begin += length


def _facts(record: RunRecord, evaluations: list[float]) -> Iterator[Fact]:
    steps, rates = _values(record, "step_s"), _values(record, "completion_tokens_per_s")
    if steps:
        yield f"training, {_counted(len(steps), 'step')}", _span(sum(steps))
        yield "median step", f"{median(steps):.2f} s"
    predicted = numbers(part(record.estimate, "step_seconds"))
    if {"low", "high"} <= predicted.keys():
        yield "predicted step", f"{predicted['low']:.1f} to {predicted['high']:.1f} s"
    if rates:
        yield "completion tokens per second, median", f"{median(rates):,.0f}"
    if evaluations:
        yield _counted(len(evaluations), "evaluation"), _span(sum(evaluations))


def _values(record: RunRecord, key: str) -> list[float]:
    return [value for row in record.metrics if (value := number(row, key)) is not None]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
