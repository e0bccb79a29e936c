"""May the run start: refused is what does not fit and what teaches nothing; all else passes with its verdict."""

from collections.abc import Iterator

from lowmem_rl.errors import DoesNotFit, LowMemError, NoSignal
from lowmem_rl.planning.explain import explain
from lowmem_rl.planning.plan import Plan
from lowmem_rl.units import GIB

_CHEAPEST = 3


def gate(plan: Plan, *, force: bool = False) -> tuple[LowMemError, ...]:
    """Returns the refusals that `force` overrides, for the run's record; empty if the plan is sound.

    Raises `DoesNotFit`, else `NoSignal`, unless forced.
    """
    refusals = tuple(_refusals(plan))
    if refusals and not force:
        raise refusals[0]
    return refusals


def _refusals(plan: Plan) -> Iterator[LowMemError]:
    """Yields why the run may not start, memory first: a group does not matter on a card that cannot hold it."""
    if plan.memory_verdict == "does-not-fit":
        needed, target = plan.estimate, plan.target
        where = target.card.name if target.card else "this machine"
        yield DoesNotFit(
            f"{target.shape.key} with group_size={plan.config.grpo.group_size} needs {_gib(needed.expected_bytes)}, "
            f"up to {_gib(needed.upper_bytes)} ({needed.peak_phase}); {where} has {_gib(target.budget_bytes)}.",
            hint=f"{_cheapest_changes(plan)}; the group stays {plan.config.grpo.group_size}.",
        )
    if plan.signal.verdict == "too-small":
        signal, worst = plan.signal, plan.signal.findings[0]
        yield NoSignal(
            f"group_size={signal.group_size} with prompts_per_step={signal.prompts_per_step} carries no signal: "
            f"{worst.what} ({signal.pass_rate}).",
            hint=f"Set {worst.fix}." if worst.settings else f"{worst.fix[:1].upper()}{worst.fix[1:]}.",
        )


def _cheapest_changes(plan: Plan) -> str:
    explained = explain(plan)
    saving = [item for item in explained.advice if item.saves_bytes > 0]
    if not saving:
        return "No setting saves enough: take a smaller model or a larger card"
    upper, cheapest = plan.estimate.upper_bytes, (explained.remedies or saving)[:_CHEAPEST]
    return "; ".join(f"--set {item.change} brings it to {_gib(upper - item.saves_bytes)}" for item in cheapest)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
