"""May the run start: refused are what does not fit and what teaches nothing; all else passes with its verdict."""

from collections.abc import Iterator

from lowmem_rl.errors import DoesNotFit, LowMemError, NoSignal
from lowmem_rl.planning.plan import Plan
from lowmem_rl.signal.signal_report import SignalFinding
from lowmem_rl.units import GIB

CHEAPEST = 3


def gate(plan: Plan, *, force: bool = False) -> tuple[LowMemError, ...]:
    """Returns the refusals that `force` overrides, for the run's record; none where the plan is sound.

    Raises `DoesNotFit`, else `NoSignal`, unless forced.
    """
    refusals = tuple(_refusals(plan))
    if refusals and not force:
        raise refusals[0]
    return refusals


def _refusals(plan: Plan) -> Iterator[LowMemError]:
    """Yields why the run may not start, memory first: a group is not worth judging on a card that cannot hold it."""
    if plan.memory_verdict == "does-not-fit":
        yield DoesNotFit(_needs(plan), hint=_cheapest_changes(plan))
    if plan.signal.verdict == "too-small":
        yield NoSignal(_teaches(plan), hint=_cure(plan.signal.findings[0]))


def _teaches(plan: Plan) -> str:
    signal = plan.signal
    return (
        f"group_size={signal.group_size} with prompts_per_step={signal.prompts_per_step} carries no signal: "
        f"{signal.findings[0].what} ({signal.pass_rate})."
    )


def _cure(finding: SignalFinding) -> str:
    text = finding.fix
    return f"Set {text}." if finding.settings else f"{text.capitalize()}."


def _needs(plan: Plan) -> str:
    needed, target = plan.estimate, plan.target
    where = target.card.name if target.card else "this machine"
    return (
        f"{target.shape.key} with group_size={plan.config.grpo.group_size} needs {_gib(needed.expected_bytes)}, "
        f"up to {_gib(needed.upper_bytes)} ({needed.peak_phase}); {where} has {_gib(target.budget_bytes)}."
    )


def _cheapest_changes(plan: Plan) -> str:
    upper, saving = plan.estimate.upper_bytes, [item for item in plan.advice if item.saves_bytes > 0]
    if not saving:
        return f"No setting saves enough: take a smaller model or a larger card; the group stays {_group(plan)}."
    cheapest = (plan.remedies or saving)[:CHEAPEST]
    changes = "; ".join(f"--set {item.change} brings it to {_gib(upper - item.saves_bytes)}" for item in cheapest)
    return f"{changes}; the group stays {_group(plan)}."


def _group(plan: Plan) -> int:
    return plan.config.grpo.group_size


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
