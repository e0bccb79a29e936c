"""What to set after memory ran out although the plan said that it would do: the plan again, for what was there."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.planning.overrides import (
    PLANNED,
    Settings,
    as_text,
    not_already_set,
    with_overrides,
    with_planned_values,
)
from lowmem_rl.planning.search import PlanTarget, choose

HOLD_LITTLE = frozenset({"advantages", "optimizer", "between"})
"""Parts of a run that need less memory than the rollout or the update: no setting that is searched makes it less."""


def suggest_fix(config: RunConfig, target: PlanTarget, phase: str, settings: Settings) -> str:
    """Returns a hint for a resolved run that did not get through a phase even with `settings`."""
    failed = with_overrides(config, settings)
    found = fitting(failed, lacking(failed, target, phase))
    if found is not None:
        return f"This fits what was there: --set {as_text(not_already_set(config, found))}"
    if phase in HOLD_LITTLE or _has_fitted(target.estimate(failed), phase):
        return "Free what other processes hold, then go on with --resume: other phases need more than this one."
    return "Nothing smaller is known to fit: free what other processes hold, or take a smaller model."


def _has_fitted(estimate: MemoryEstimate, phase: str) -> bool:
    """Says whether a phase of a step needs less than the evaluation did, which comes before the first step."""
    return phase in ("rollout", "logprobs", "backward") and estimate.phase_bytes(phase) < estimate.phase_bytes(
        "evaluation"
    )


def lacking(failed: RunConfig, target: PlanTarget, phase: str) -> PlanTarget:
    """Returns the target with less memory than `failed` is expected to need in the phase: there was no more.

    What is no phase of the estimate holds no more than what is there between two steps.
    """
    found = target.estimate(failed)
    needed = found.phase_bytes(phase if phase in found.phases else "save")
    return replace(target, budget_bytes=min(target.budget_bytes, needed - 1))


def fitting(failed: RunConfig, target: PlanTarget) -> dict[str, Any] | None:
    """Returns settings with which the run fits, those first that cost no learning; None where none are known."""
    for settings in _ever_smaller(failed):
        run = choose(with_overrides(failed, settings), target)
        if target.fits(run):
            return with_planned_values({key: value for key, value in settings.items() if key not in PLANNED}, run)
    return None


def _ever_smaller(failed: RunConfig) -> Iterator[dict[str, Any]]:
    """Yields all that the planner may choose, then shorter completions too; the group stays."""
    free = dict.fromkeys(PLANNED, "auto")
    yield free
    tokens = failed.grpo.max_completion_tokens
    while tokens > 1:
        tokens //= 2
        yield free | {"grpo.max_completion_tokens": tokens}
