"""What to set after memory ran out although the plan fitted: the plan again, for the memory that was there."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import (
    PLANNED,
    Settings,
    as_text,
    not_already_set,
    with_overrides,
    with_planned_values,
)
from lowmem_rl.planning.search import PlanTarget, choose

_SMALL_PHASES = frozenset({"advantages", "optimizer", "between"})
"""Parts of a run that need less memory than the rollout or the update: no setting that is searched makes it less."""
STEP_PHASES = ("rollout", "logprobs", "backward")


def suggest_fix(config: RunConfig, target: PlanTarget, phase: str, settings: Settings) -> str:
    """Returns a hint for a resolved run that did not get through a phase even with `settings`."""
    failed = with_overrides(config, settings)
    if (found := fitting(failed, lacking(failed, target, phase))) is not None:
        return f"This fits in what was there: --set {as_text(not_already_set(config, found))}"
    # The evaluation comes before the first step: a phase that needs less has fitted before.
    bytes_of = target.estimate(failed).phase_bytes
    if phase in _SMALL_PHASES or (phase in STEP_PHASES and bytes_of(phase) < bytes_of("evaluation")):
        return "Free what other processes hold, then continue with --resume: other phases need more than this one."
    return "Nothing smaller is known to fit: free what other processes hold, or take a smaller model."


def lacking(failed: RunConfig, target: PlanTarget, phase: str) -> PlanTarget:
    """Returns the target with less memory than `failed` is expected to need in the phase: there was no more.

    A phase that the estimate does not have needs no more than what is there between two steps.
    """
    found = target.estimate(failed)
    needed = found.phase_bytes(phase if phase in found.phases else "save")
    return replace(target, budget_bytes=min(target.budget_bytes, needed - 1))


def fitting(failed: RunConfig, target: PlanTarget) -> dict[str, Any] | None:
    """Returns settings with which the run fits, those first that cost no learning; None if none are known."""
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
