"""What `experiment run --dry-run` prints: each arm with what a run of it needs, the time of all, what it could find."""

from collections.abc import Iterator, Sequence
from typing import Any

from lowmem_rl.config.toml_text import toml_value
from lowmem_rl.experiment.seed_statistics import ASSUMED_SPREAD, expected_spread
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_time import StudyTime, num_tuning_runs, study_time
from lowmem_rl.experiment.trial_configs import ArmPlan
from lowmem_rl.experiment.verdicts import smallest_found
from lowmem_rl.planning.step_time import SecondsRange
from lowmem_rl.units import GIB

_HARDEST = 0.5
"""The pass rate at which an item shows least, for a plan that does not know its own."""
_HOUR_S = 3600


def plan_facts(
    study: Study, plans: Sequence[ArmPlan], price: float | None, spread: float | None = None
) -> dict[str, Any]:
    """Returns what would run as plain JSON data; `price` is that of an hour of the card, `spread` what runs showed."""
    arms = [_facts(study, plan) for plan in plans]
    total = _total(study, plans, study_time(study, plans), price)
    return {"study": study.name, "finds": _finds(study, plans, spread), "arms": arms, "total": total}


def plan_page(study: Study, plans: Sequence[ArmPlan], price: float | None, spread: float | None = None) -> str:
    """Returns a row for each task and arm, then what all of it takes, and what the study could find."""
    from lowmem_rl_cli.text_page import list_page

    minutes = ("most minutes a run", "most minutes in all")
    head = ("task", "arm", "differs from the baseline", "memory", "verdict", *minutes)
    page = list_page()
    lines = list(page.listing(head, [_row(_facts(study, plan)) for plan in plans]))
    texts = (*_size(study, plans), *_takes(study, study_time(study, plans), price), *_sentences(study, plans, spread))
    lines += ["", *(line for text in texts for line in page.fold(text, ""))]
    return "\n".join(lines)


def _facts(study: Study, plan: ArmPlan) -> dict[str, Any]:
    time, runs = plan.plan.time, len(study.seeds)
    minutes = None if time is None else time.run.high / 60
    return {
        "task": plan.task,
        "arm": plan.arm,
        "differences": dict(plan.differences),
        "expected_bytes": plan.plan.estimate.expected_bytes,
        "verdict": plan.plan.memory_verdict,
        "minutes_a_run": minutes,
        "minutes": None if minutes is None else minutes * runs,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    differs = ", ".join(f"{key}={toml_value(value)}" for key, value in facts["differences"].items())
    minutes = ["-" if found is None else f"{found:.0f}" for found in (facts["minutes_a_run"], facts["minutes"])]
    memory = f"{facts['expected_bytes'] / GIB:.1f} GiB"
    return (facts["task"], facts["arm"], differs or "-", memory, facts["verdict"], *minutes)


def _finds(study: Study, plans: Sequence[ArmPlan], spread: float | None) -> float | None:
    """Returns the smallest gain that four of five such studies find.

    By the spread between runs that the study has shown, else an assumed one; None for a reward, which has none to
    assume.
    """
    if spread is None and study.metric == "reward":
        return None
    return smallest_found(study, spread or expected_spread(_HARDEST, plans[0].plan.config.eval.examples))


def _total(study: Study, plans: Sequence[ArmPlan], time: StudyTime | None, price: float | None) -> dict[str, Any]:
    """Returns the number of runs, their hours and their price; None for what is not known."""
    total = None if time is None else time.total
    return {
        "runs": len(study.seeds) * len(plans),
        "tuning_runs": num_tuning_runs(study),
        "hours": _hours(total),
        "tuning_hours": None if time is None else _hours(time.tuning),
        "price": None if price is None else _hours(total, price),
    }


def _hours(seconds: SecondsRange | None, price: float = 1.0) -> dict[str, float] | None:
    """Returns the ends in hours, or in money if an hour has a price."""
    if seconds is None:
        return None
    return {"low": seconds.low / _HOUR_S * price, "high": seconds.high / _HOUR_S * price}


def _size(study: Study, plans: Sequence[ArmPlan]) -> Iterator[str]:
    runs = len(study.seeds) * len(plans)
    yield f"{runs} runs and {num_tuning_runs(study)} to tune. The baseline is {study.baseline}; {study.metric} decides."


def _takes(study: Study, time: StudyTime | None, price: float | None) -> Iterator[str]:
    """Yields how long the study takes, and what that costs."""
    if time is None:
        yield "How long it takes is not known before its first run has ended; `experiment status` reports it then."
        return
    tuning = f", {_span(time.tuning)} of them to tune" if time.tuning.high else ""
    yield f"It takes {_span(time.total)} hours of one card{tuning}: steps and evaluations, without loading."
    if study.run.jobs > 1:
        yield f"On {study.run.jobs} such cards at once it is over after {_span(time.total, study.run.jobs)} hours."
    if price is not None:
        low, high = (seconds / _HOUR_S * price for seconds in (time.total.low, time.total.high))
        yield f"It costs {low:.2f} to {high:.2f} at {price:g} an hour."


def _span(seconds: SecondsRange, jobs: int = 1) -> str:
    low, high = (end / _HOUR_S / jobs for end in (seconds.low, seconds.high))
    return " to ".join(f"{end:.1f}" if end < 10 else f"{end:.0f}" for end in (low, high))


def _sentences(study: Study, plans: Sequence[ArmPlan], spread: float | None) -> Iterator[str]:
    """Yields what must be known of the comparison: how it is tuned, and what it could find."""
    if not study.tuning:
        yield "One learning rate for all arms that set none: it favours those that it suits. [tune] finds one for each."
    found, seeds = _finds(study, plans, spread), len(study.seeds)
    tests = f"{study.num_comparisons} comparison{'s'[study.num_comparisons == 1 :]}"
    if spread is None and study.metric == "reward":
        yield "How large a difference it could find is not known before two seeds have shown their spread."
    elif found is None:
        yield "One seed finds nothing: two runs of one arm differ, too."
    elif study.metric != "reward" and found > 1:
        yield f"{seeds} seeds find no difference, however large, in {tests}: add seeds, or drop arms."
    else:
        size = f"{found:.2g}" if study.metric == "reward" else f"{100 * found:.1f} points"
        yield (
            f"It finds a difference of {size} in four of five studies: a paired t test over {seeds} seeds, {tests}, "
            f"{_basis(plans, spread)}."
        )


def _basis(plans: Sequence[ArmPlan], spread: float | None) -> str:
    if spread is not None:
        return f"a spread of {spread:.2g} between runs of one arm (seen so far)"
    items = plans[0].plan.config.eval.examples
    return f"a spread of {ASSUMED_SPREAD:.2f} between runs of one arm (assumed) and {items} items"
