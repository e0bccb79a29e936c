"""What else could be done: other group sizes, other methods, and what to change.

Hundreds of estimates: computed for `profile` and for a refusal, not for a run that starts.
"""

from dataclasses import dataclass

from lowmem_rl.planning.advice import Advice, advise, remedies
from lowmem_rl.planning.alternatives import Alternative, alternatives
from lowmem_rl.planning.frontier import FrontierPoint, frontier
from lowmem_rl.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Explanation:
    """A plan next to its alternatives."""

    frontier: tuple[FrontierPoint, ...]
    """By group size."""
    alternatives: tuple[Alternative, ...]
    """By method."""
    advice: tuple[Advice, ...]
    """The best first."""
    remedies: tuple[Advice, ...]
    """Advice with which a run fits that does not."""


def explain(plan: Plan) -> Explanation:
    """Returns the frontier, the alternatives and the advice of a plan."""
    found = advice_of(plan)
    return Explanation(
        frontier=frontier(plan.config, plan.target, plan.signal.pass_rate),
        alternatives=alternatives(plan.config, plan.target, plan.signal.updated_share),
        advice=found,
        remedies=remedies(found, plan.target.budget_bytes - plan.estimate.upper_bytes),
    )


def advice_of(plan: Plan) -> tuple[Advice, ...]:
    """Returns the advice alone."""
    return advise(plan.written, plan.config, plan.target, plan.signal.pass_rate)
