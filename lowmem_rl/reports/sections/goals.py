"""When the run will reach an accuracy on its training prompts, and what that costs, if its curve can tell."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median
from typing import Literal

from lowmem_rl.forecast import FARTHEST, FEWEST_STEPS, Forecast, NoForecast, forecast
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number

GOALS = (0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_ROWS = 2**31
_SMOOTHED = 5
"""A goal is reached when the mean of so many steps is."""
_NOTE = (
    "Accuracy on prompts that it trains on, sampled, in any format; 90 % intervals of the step at which the mean of "
    "five steps gets there, if it continues as in the last 20. Hours are of steps alone, from now."
)


def goals_of(record: RunRecord, goals: Sequence[float] = GOALS, price: float | None = None) -> PageTable:
    """Returns a row for each goal that is ahead and not too early to forecast; `price` is that of an hour."""
    head = ("accuracy", "step", "90 %", "hours", *(() if price is None else ("price",)))
    rows = tuple(_row(record, goal, found, price) for goal, found in forecasts(record, goals))
    return PageTable("When it will reach", _NOTE, head, rows)


def forecasts(record: RunRecord, goals: Sequence[float]) -> Iterator[tuple[float, Forecast]]:
    """Yields the goals that the run has not reached and for which its curve tells when it will."""
    found = ((goal, progress(record, goal)) for goal in goals)
    yield from ((goal, one) for goal, one in found if isinstance(one, Forecast))


def progress(record: RunRecord, goal: float) -> Forecast | NoForecast | Literal["reached", "not-recorded"]:
    """Returns when a run reaches an accuracy in training, that it has, or why its curve does not tell."""
    accuracies, rows = _accuracies(record), _rows_a_step(record)
    if len(accuracies) < len(record.metrics) or rows is None:
        return "not-recorded"
    if accuracies and fmean(accuracies[-_SMOOTHED:]) >= goal:
        return "reached"
    return forecast(goal, accuracies, rows)


def until(record: RunRecord, goal: float, price: float | None = None) -> str:
    """Returns in a sentence when a run reaches an accuracy in training; `price` is that of an hour."""
    found, wanted = progress(record, goal), f"Accuracy {goal:g} in training"
    if not isinstance(found, Forecast):
        return f"{wanted}: {_without_forecast(record, found)}."
    low, high = (hours_to(record, step) for step in (found.low, found.high))
    cost = "" if price is None else f", {price * low:.2f} to {price * high:.2f} in money"
    planned = record.planned_steps
    ends = f" Its plan ends before that, at step {planned}." if planned and planned < found.low else ""
    at = f"at step {found.low:.0f} to {found.high:.0f} (90 %)"
    return f"{wanted}: {at}, {low:.2g} to {high:.2g} hours from now{cost}.{ends}"


def _without_forecast(record: RunRecord, why: NoForecast | Literal["reached", "not-recorded"]) -> str:
    accuracies, early = _accuracies(record), "too early to tell"
    if why == "reached":
        latest = accuracies[-_SMOOTHED:]
        return f"reached; the mean of the last {len(latest)} steps is {fmean(latest):.3g}"
    if why == "few-steps":
        return f"{early} from {len(accuracies)} steps; a curve can tell from step {FEWEST_STEPS} on"
    if why == "not-rising":
        return f"{early}; the last steps do not rise for certain"
    if why == "too-far":
        return f"{early}; it may come only after {FARTHEST:g} times as many steps as the run has"
    return "not known; the metrics lack an accuracy in each step, or the size of its groups"


def _accuracies(record: RunRecord) -> list[float]:
    shares = (number(row, "accuracy") for row in record.metrics)
    return [share for share in shares if share is not None and 0 <= share <= 1]


def _rows_a_step(record: RunRecord) -> int | None:
    """Returns the completions of a step, None for what a stranger's config.json may hold."""
    group, prompts = record.setting("grpo.group_size"), record.setting("grpo.prompts_per_step")
    if type(group) is not int or type(prompts) is not int or not 0 < group * prompts <= _MOST_ROWS:
        return None
    return group * prompts


def hours_to(record: RunRecord, step: float) -> float:
    """Returns the hours of the steps from now to a step, at the median pace."""
    seconds = [found for row in record.metrics if (found := number(row, "step_s")) is not None]
    return max(0.0, step - record.last_step) * (median(seconds) if seconds else 0.0) / 3600


def _row(record: RunRecord, goal: float, found: Forecast, price: float | None) -> Cells:
    hours = [hours_to(record, step) for step in (found.low, found.high)]
    prices = () if price is None else (f"{price * hours[0]:.2f} to {price * hours[1]:.2f}",)
    steps = f"{found.low:.0f} to {found.high:.0f}"
    return (f"{100 * goal:.3g} %", f"{found.expected:.0f}", steps, f"{hours[0]:.2g} to {hours[1]:.2g}", *prices)
