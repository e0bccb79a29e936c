"""What each trial ended with, read from its run directory; one that failed counts as far as it came."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from math import inf
from statistics import fmean, median
from typing import Any, Literal

from lowmem_rl.experiment.study import Match, Metric
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import number, part, rows_in

Status = Literal["done", "failed", "running", "to come"]
_GRADES = {"pass_at_1": LENIENT, "strict_pass_at_1": STRICT}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trial. What is not known is None."""

    task: str
    arm: str
    seed: int
    status: Status
    exit_code: int | None = None
    attempts: int = 0
    machine: str | None = None
    steps: int = 0
    """Steps that it took."""
    pass_at_1: float | None = None
    strict_pass_at_1: float | None = None
    reward: float | None = None
    """Mean over all steps that were planned; a step that is missing counts as the first."""
    base: float | None = None
    """The study's metric before training."""
    trained_numbers: int | None = None
    peak_bytes: int | None = None
    step_s: float | None = None
    """Median."""
    minutes: float | None = None
    """Of all steps; retries that were lost are not counted."""
    commit: str | None = None
    findings: tuple[str, ...] = ()
    """Names of what the audit found."""
    items: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Whether each held-out item is right, by its id, as the study's metric grades it."""
    answers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The gold answer of each held-out item, by its id."""

    def value(self, metric: Metric) -> float | None:
        """Returns what was measured of a metric, None if nothing was."""
        found = getattr(self, metric)
        return None if found is None else float(found)

    def to_json(self) -> Row:
        """Returns a row of results.json."""
        row = asdict(self)
        return {key: value for key, value in row.items() if key not in ("items", "answers")}


def outcome_of(
    trial: Trial, status: Status, record: RunRecord | None, attempts: Sequence[Row], metric: Metric
) -> Outcome:
    """Returns what a trial ended with: its last evaluation, else the base's; no numbers if it has no run directory.

    `attempts` are its rows of trials.jsonl.
    """
    about: dict[str, Any] = {"attempts": len(attempts)}
    if attempts:  # the file may be anybody's
        code, machine = attempts[-1].get("exit_code"), attempts[-1].get("machine")
        about["exit_code"] = code if type(code) is int and abs(code) < 2**31 else None
        about["machine"] = machine if isinstance(machine, str) else None
    if record is not None:
        about |= _of_steps(record) | _of(record.latest or record.before, record, metric)
        if metric == "reward":
            about["base"] = number(record.metrics[0], "reward") if record.metrics else None
    return Outcome(trial.task, trial.arm, trial.seed, status, **about)


def spent(record: RunRecord, match: Match) -> list[float]:
    """Returns how much of what arms get equally much of a run had used after each of its steps."""
    if match == "tokens":
        return [number(row, "num_tokens") or 0.0 for row in record.metrics]
    costs = [1.0 if match == "steps" else (number(row, "step_s") or 0.0) / 60 for row in record.metrics]
    return list(accumulate(costs))


def within(record: RunRecord, match: Match, budget: float) -> RunRecord:
    """Returns the part of a run that a budget pays for: its steps, and its evaluations, the last one where it ends.

    That one is interpolated: an evaluation is seldom just there, and the one before would favour the run that ends
    there with its own. Its planned steps are then those that the budget pays for. For a run that ended before it had
    used the budget they are estimated at its own pace, so that the steps it lacks count as missing.
    """
    used = spent(record, match)
    rows = tuple(row for row, cost in zip(record.metrics, used, strict=True) if cost <= budget)
    evaluations = tuple(_evaluations_within(record, budget, used, rows[-1]["step"] if rows else 0))
    steps = len(rows)
    if steps == len(used):  # all that it took: it may have ended early
        pace = used[-1] / steps if used else 0.0
        steps = max(steps, int(min(record.planned_steps or 0, budget / pace if pace else inf)))
    grpo = {**part(record.config, "grpo"), "steps": steps}
    return replace(record, metrics=rows, evaluations=evaluations, config={**record.config, "grpo": grpo})


def _evaluations_within(record: RunRecord, budget: float, used: Sequence[float], last: int) -> Iterator[EvalRecord]:
    """Yields the evaluations up to a step, and one between those around the end of the budget."""
    within = [one for one in record.evaluations if one.step <= last]
    yield from within
    after = next((one for one in record.evaluations if one.step > last), None)
    if within and after:
        costs = {0: 0.0, **{row["step"]: cost for row, cost in zip(record.metrics, used, strict=True)}}
        low, high = costs.get(within[-1].step), costs.get(after.step)
        if low is not None and high is not None and low < budget < high:
            yield between(within[-1], after, (budget - low) / (high - low), last)


def between(first: EvalRecord, second: EvalRecord, weight: float, step: int) -> EvalRecord:
    """Returns an evaluation between two, on the items of both; `weight` is that of the second."""
    shares = {grade: (first.shares(grade), second.shares(grade)) for grade in _GRADES.values()}
    shared = shares[LENIENT][0].keys() & shares[LENIENT][1].keys()
    items: tuple[Row, ...] = tuple(
        {"example_id": name, **{grade: _mixed(a[name], b[name], weight) for grade, (a, b) in shares.items()}}
        for name in sorted(shared)
    )
    result: Row = {"step": step}
    for metric, grade in _GRADES.items():
        ends = [number(one.result, metric) for one in (first, second)]
        if items:
            result[metric] = fmean(item[grade] for item in items)
        elif None not in ends:
            result[metric] = _mixed(ends[0] or 0.0, ends[1] or 0.0, weight)
    return EvalRecord("matched", result, items)


def _mixed(first: float, second: float, weight: float) -> float:
    return first + weight * (second - first)


def _of(evaluation: EvalRecord | None, record: RunRecord, metric: Metric) -> dict[str, Any]:
    if evaluation is None:
        return {}
    return {
        "pass_at_1": number(evaluation.result, "pass_at_1"),
        "strict_pass_at_1": number(evaluation.result, "strict_pass_at_1"),
        "base": number(record.before.result, metric) if record.before and metric in _GRADES else None,
        "items": evaluation.shares(_GRADES[metric]) if metric in _GRADES else {},
        "answers": {row["example_id"]: str(row["answer"]) for row in evaluation.items if "answer" in row},
    }


def _of_steps(record: RunRecord) -> dict[str, Any]:
    rows = record.metrics
    seconds = [found for row in rows if (found := number(row, "step_s")) is not None]
    rewards = [found for row in rows if (found := number(row, "reward")) is not None]
    missing = max(0, (record.planned_steps or 0) - len(rewards))
    numbers = [found for row in rows if (found := number(row, "trainable_numbers")) is not None]
    return {
        "steps": record.last_step,
        "reward": (sum(rewards) + missing * rewards[0]) / (len(rewards) + missing) if rewards else None,
        "trained_numbers": int(max(numbers)) if numbers else None,
        "peak_bytes": record.peak_bytes,
        "step_s": median(seconds) if seconds else None,
        "minutes": sum(seconds) / 60 if seconds else None,
        "commit": found if isinstance(found := record.machine.get("commit"), str) else None,
        "findings": tuple(str(row.get("name")) for row in rows_in(record.health, "findings")),
    }
