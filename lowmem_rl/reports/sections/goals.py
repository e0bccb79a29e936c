"""When the run will reach an accuracy on its training prompts, and what that costs, if its curve can tell."""

from collections.abc import Iterator, Sequence
from statistics import median

from lowmem_rl.forecast import Forecast, steps_to
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number

GOALS = (0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_ROWS = 2**31
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
    shares = (number(row, "accuracy") for row in record.metrics)
    accuracies = [share for share in shares if share is not None and 0 <= share <= 1]
    group, prompts = record.setting("grpo.group_size"), record.setting("grpo.prompts_per_step")
    if len(accuracies) < len(record.metrics) or type(group) is not int or type(prompts) is not int:
        return
    if not 0 < group * prompts <= _MOST_ROWS:  # of a stranger's config.json
        return
    latest = accuracies[-5:]
    for goal in goals:
        if sum(latest) < goal * len(latest) and (found := steps_to(goal, accuracies, group * prompts)):
            yield goal, found


def hours_to(record: RunRecord, step: float) -> float:
    """Returns the hours of the steps from now to a step, at the median pace."""
    seconds = [found for row in record.metrics if (found := number(row, "step_s")) is not None]
    return max(0.0, step - record.last_step) * (median(seconds) if seconds else 0.0) / 3600


def _row(record: RunRecord, goal: float, found: Forecast, price: float | None) -> Cells:
    hours = [hours_to(record, step) for step in (found.low, found.high)]
    prices = () if price is None else (f"{price * hours[0]:.2f} to {price * hours[1]:.2f}",)
    steps = f"{found.low:.0f} to {found.high:.0f}"
    return (f"{100 * goal:.3g} %", f"{found.expected:.0f}", steps, f"{hours[0]:.2g} to {hours[1]:.2g}", *prices)
