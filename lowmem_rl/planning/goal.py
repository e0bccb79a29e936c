"""What a plan can say of when its run reaches an accuracy, and what that costs: little, before the first steps."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lowmem_rl.planning.plan import Plan
from lowmem_rl.planning.recorded_learning import recorded_steps
from lowmem_rl.planning.run_cost import Price

Verdict = Literal["reached", "no-signal", "forecast", "too-early"]
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Span:
    """From a low to a high end."""

    low: float
    high: float

    def times(self, factor: float) -> "Span":
        return Span(self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Goal:
    """An accuracy on training prompts, and when the run reaches it; what is not known is None."""

    accuracy: float
    verdict: Verdict
    steps: Span | None = None
    hours: Span | None = None
    """Of those steps, without evaluations."""
    planned_hours: Span | None = None
    """Of the whole run, with evaluations."""
    price: Price | None = None

    def __str__(self) -> str:
        wanted = f"Accuracy {self.accuracy:g} in training"
        if self.verdict == "reached":
            return f"{wanted}: the base model has it already."
        if self.verdict == "no-signal":
            return f"{wanted}: not by this plan, whose groups carry no signal."
        if self.steps:
            at = f"at step {self.steps.low:.0f} to {self.steps.high:.0f}"
            return f"{wanted}: {at} (90 %, by recorded runs of this preset){self._spent(', ', self.hours)}."
        return (
            f"{wanted}: too early to tell. A pass rate does not show how fast a run learns; its first steps do: "
            f"lowmem-rl report RUN --goal {self.accuracy:g}."
            f"{self._spent(' The whole run takes ', self.planned_hours, '.')}"
        )

    def _spent(self, before: str, hours: Span | None, after: str = "") -> str:
        if hours is None:
            return ""
        text = f"{before}{hours.low:.2g} to {hours.high:.2g} hours"
        if self.price:
            money = hours.times(self.price.an_hour)
            text += f", {money.low:.2f} to {money.high:.2f} {self.price.currency}".rstrip()
            text += f" at {self.price.an_hour:g} an hour"
        return text + after

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        spans = {"steps": self.steps, "hours": self.hours, "planned_hours": self.planned_hours}
        ends = {name: None if span is None else asdict(span) for name, span in spans.items()}
        money = asdict(self.hours.times(self.price.an_hour)) if self.hours and self.price else None
        return {"accuracy": self.accuracy, "verdict": self.verdict, **ends, "money": money}


def goal_of(plan: Plan, accuracy: float, price: Price | None) -> Goal:
    """Returns what is known of a plan's run and an accuracy in (0, 1).

    Nothing is made up: a curve is used only if runs of the same configuration are recorded.
    """
    rate, time = plan.signal.pass_rate, plan.time
    is_known = rate.kind != "unknown"
    planned = None if time is None else Span(time.run.low, time.run.high).times(1 / _HOUR_S)
    about: dict[str, Any] = {"planned_hours": planned, "price": price}
    if is_known and rate.mean >= accuracy:
        return Goal(accuracy, "reached", **about)
    if plan.signal.verdict == "too-small":
        return Goal(accuracy, "no-signal", **about)
    found = recorded_steps(plan.written, rate.mean, accuracy) if is_known else None
    if found is None:
        return Goal(accuracy, "too-early", **about)
    steps = Span(*found)
    hours = None if time is None else Span(steps.low * time.step.low, steps.high * time.step.high).times(1 / _HOUR_S)
    return Goal(accuracy, "forecast", steps, hours, **about)
