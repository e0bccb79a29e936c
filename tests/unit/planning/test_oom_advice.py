"""What is offered after memory ran out: a run that needs less than what was not there."""

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.oom_advice import fitting, lacking, suggest_fix
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.plan import Plan, plan

PHASES = ("rollout", "backward", "evaluation")


def plan_of(preset: str) -> Plan:
    composed = resolve(preset=preset)
    return plan(composed.config, load_shape(composed.config.model.name), CARDS[composed.card])


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("preset", ["qwen7b-a6000", "qwen1.5b-24gb", "qwen7b-t4"])
def test_what_is_offered_fits_although_the_phase_that_failed_does_not(preset: str, phase: str) -> None:
    planned = plan_of(preset)
    target = lacking(planned.config, planned.target, phase)
    assert target.budget_bytes < planned.estimate.phase_bytes(phase)
    settings = fitting(planned.config, target)
    hint = suggest_fix(planned.config, planned.target, phase, {})
    if settings is None:
        assert hint.startswith(("Nothing smaller is known to fit", "Free what other processes hold"))
        return
    run = with_overrides(planned.config, settings)
    assert target.fits(run)
    assert run.grpo.group_size == planned.config.grpo.group_size
    assert hint.startswith("This fits in what was there: --set ")


def test_what_costs_learning_is_offered_last() -> None:
    planned = plan_of("qwen7b-a6000")
    assert "max_completion_tokens" not in suggest_fix(planned.config, planned.target, "rollout", {})


@pytest.mark.parametrize("preset", ["qwen7b-a6000", "qwen7b-t4"])
@pytest.mark.parametrize("phase", ["advantages", "optimizer", "between"])
def test_a_phase_that_needs_less_than_others_asks_for_the_memory_that_it_had(preset: str, phase: str) -> None:
    planned = plan_of(preset)
    hint = suggest_fix(planned.config, planned.target, phase, {})
    assert hint.startswith("Free what other processes hold, then continue with --resume")


def test_an_update_that_needs_less_than_the_evaluation_did_asks_for_the_memory_that_it_had() -> None:
    composed = resolve(preset="tiny-cpu", settings=["memory.micro_batch=8", "grpo.prompts_per_step=2"])
    planned = plan(composed.config, load_shape(composed.config.model.name), CARDS["a6000"])
    assert planned.estimate.phase_bytes("backward") < planned.estimate.phase_bytes("evaluation")
    hint = suggest_fix(planned.config, planned.target, "backward", {"memory.micro_batch": 1})
    assert hint.startswith("Free what other processes hold, then continue with --resume")


def test_if_nothing_is_known_to_fit_the_hint_says_so() -> None:
    planned = plan_of("qwen7b-t4")
    assert "Nothing smaller is known to fit" in suggest_fix(planned.config, planned.target, "load", {})
