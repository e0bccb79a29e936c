import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.models.hardware import CARDS, find_card
from lowmem_rl.models.lookup import CATALOGUE, load_shape
from lowmem_rl.planning.overrides import PLANNED, divisors, planner_origins, with_overrides
from lowmem_rl.planning.search import AS_FAST, PlanTarget, choose, resolve_auto
from lowmem_rl.units import GIB

AUTO = {"micro_batch": "auto", "rollout_rows": "auto", "checkpointing": "auto"}
QWEN_7B = load_shape("Qwen/Qwen2.5-7B-Instruct")


def run_of(memory: dict, **grpo) -> RunConfig:
    return RunConfig.model_validate({"grpo": grpo, "memory": memory})


def settings_of(config: RunConfig) -> tuple:
    return config.micro_batch, config.rollout_rows, config.checkpointing, config.rollout_weights


def test_without_auto_nothing_is_chosen():
    memory = {"micro_batch": 4, "checkpointing": "plain", "kept_states": "off"}
    config = with_overrides(run_of(memory), {"rollout.weights": "merged"})
    assert resolve_auto(config, QWEN_7B, GIB, find_card("t4")) == config


def test_an_auto_setting_raises_when_it_is_used():
    config = run_of(AUTO)
    assert list(broken_rules(config)) == []
    with pytest.raises(ValueError, match="memory.micro_batch is still 'auto'"):
        _ = config.micro_batch
    with pytest.raises(ValueError, match="rollout.weights is still 'auto'"):
        _ = config.rollout_weights


def test_what_the_planner_chose_is_said_to_be_its_choice():
    run = with_overrides(run_of({"micro_batch": 4}), {"rollout.weights": "merged"})
    assert planner_origins(run) == dict.fromkeys(("memory.checkpointing", "memory.kept_states"), "planner (auto)")
    assert planner_origins(run_of(AUTO)).keys() == set(PLANNED)


def test_only_what_is_auto_is_chosen():
    chosen = resolve_auto(run_of(AUTO | {"micro_batch": 2}), QWEN_7B, 48 * GIB, find_card("a6000"))
    assert chosen.micro_batch == 2


def test_a_large_card_keeps_activations_and_samples_in_one_wave():
    chosen = resolve_auto(run_of(AUTO), load_shape("Qwen/Qwen2.5-1.5B-Instruct"), 80 * GIB, find_card("h100"))
    assert (chosen.rollout_rows, chosen.checkpointing) == (64, "none")


def test_if_nothing_fits_the_plan_needs_least():
    chosen = resolve_auto(run_of(AUTO), QWEN_7B, GIB, find_card("t4"))
    assert settings_of(chosen) == (1, 1, "unsloth", "quantized")


@pytest.mark.parametrize(
    ("model", "card", "weights"),
    [
        ("tiny", None, "merged"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "3090", "merged"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "a6000", "merged"),
        ("Qwen/Qwen2.5-7B-Instruct", "t4", "quantized"),
        ("Qwen/Qwen2.5-7B-Instruct", "3090", "quantized"),
        ("Qwen/Qwen2.5-7B-Instruct", "a6000", "merged"),
    ],
)
def test_weights_are_expanded_if_the_plan_has_room(model, card, weights):
    gpu = CARDS.get(card)
    chosen = resolve_auto(run_of(AUTO), load_shape(model), gpu.offered_bytes if gpu else 8 * GIB, gpu)
    assert chosen.rollout_weights == weights


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"model.bits": 16}, "Qwen/Qwen2.5-1.5B-Instruct"),
        ({"rollout.engine": "generate"}, "Qwen/Qwen2.5-1.5B-Instruct"),
        ({"rollout.engine": "vllm"}, "Qwen/Qwen2.5-1.5B-Instruct"),
        ({}, "microsoft/Phi-3.5-mini-instruct"),  # our engine does not know its layers
    ],
)
def test_what_expands_nothing_gets_no_copy(settings, model):
    chosen = resolve_auto(with_overrides(run_of(AUTO), settings), load_shape(model), 80 * GIB, find_card("h100"))
    assert chosen.rollout_weights == "quantized"


def test_a_copy_may_cost_rows_of_the_wave_if_that_is_faster():
    run, card = run_of(AUTO, group_size=32, max_prompt_tokens=384, max_completion_tokens=1536), find_card("a6000")
    target = PlanTarget(QWEN_7B, card, card.offered_bytes)
    chosen = choose(run, target)
    whole = with_overrides(chosen, {"memory.rollout_rows": run.rows_per_rollout, "rollout.weights": "quantized"})
    assert (chosen.rollout_weights, chosen.rollout_rows) == ("merged", 128)
    assert target.fits(whole)
    assert target.relative_step_time(chosen) < target.relative_step_time(whole)


def test_on_a_cpu_nothing_is_offloaded():
    assert resolve_auto(run_of(AUTO), load_shape("tiny"), 2**20, None).checkpointing == "plain"


runs = st.builds(
    run_of,
    st.just(AUTO),
    group_size=st.integers(2, 48),
    prompts_per_step=st.integers(1, 24),
    steps_per_rollout=st.integers(1, 3),
    max_completion_tokens=st.sampled_from([64, 512, 4096]),
)
targets = st.builds(
    PlanTarget,
    st.sampled_from(sorted(CATALOGUE)).map(load_shape),
    st.sampled_from([*CARDS.values(), None]),
    st.integers(4, 140).map(lambda gib: gib * GIB),
)


@pytest.mark.slow
@given(runs, targets)
def test_a_plan_breaks_no_rule_keeps_the_group_and_fits_if_anything_does(config, target):
    chosen = choose(config, target)
    assert list(broken_rules(chosen)) == []
    assert chosen.grpo == config.grpo
    memory = {"memory.micro_batch": 1, "memory.rollout_rows": 1, "memory.checkpointing": "unsloth"}
    frugal = with_overrides(chosen, {**memory, "rollout.weights": "quantized"})
    assert target.fits(chosen) or not target.fits(frugal)


@pytest.mark.slow
@given(runs, targets)
def test_more_memory_never_makes_the_plan_slower(config, target):
    more = PlanTarget(target.shape, target.card, target.budget_bytes + 8 * GIB)
    slow, fast = (target.relative_step_time(choose(config, at)) for at in (target, more))
    assert fast <= AS_FAST * slow


@given(st.integers(1, 5000))
def test_divisors_are_all_and_in_order(total):
    assert divisors(total) == [number for number in range(1, total + 1) if total % number == 0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grpo.group_siez", 8),
        ("gpro.group_size", 8),
        ("seed", 1),
        ("grpo.group_size", 1),
        ("memory.micro_batch", "most"),
        ("rollout.weights", "expanded"),
        ("eval.batch", 0),
    ],
)
def test_an_override_that_no_field_takes_is_refused(key, value):
    with pytest.raises(ValueError, match=key.rpartition(".")[2]):
        with_overrides(run_of(AUTO), {"grpo.steps": 1, key: value})


def test_an_override_changes_its_key_and_nothing_else():
    before = run_of(AUTO)
    after = with_overrides(before, {"grpo.steps": 7, "logging.report_to": []})
    assert after.grpo.steps == 7
    assert after.logging.report_to == ()
    assert with_overrides(after, {"grpo.steps": before.grpo.steps}) == before


def test_a_run_that_selects_layers_is_planned_for_the_rounds_before_it_too():
    """A card that has room for an adapter of rank 1 in one layer, and not for one of rank 16 in all."""
    target = PlanTarget(QWEN_7B, find_card("3090"), 24 * GIB)
    memory = {"micro_batch": 4, "checkpointing": "plain", "rollout_rows": 8}
    sections = {"grpo": {"group_size": 8, "prompts_per_step": 8}, "adapter": {"rank": 1}, "memory": memory}
    by_gradient, by_weights, named = (
        RunConfig.model_validate({**sections, "rollout": {"weights": "quantized"}, "trainable": trainable})
        for trainable in (
            {"select": "fisher", "select_top": 1},
            {"select": "snr", "select_top": 1},
            {"layers": "first:1"},
        )
    )
    needed = {phase: target.estimate(named).phase_bytes(phase) for phase in target.estimate(named).phases}
    assert {phase: target.estimate(by_weights).phase_bytes(phase) for phase in needed} == needed
    probed = target.estimate(by_gradient)
    for phase in ("load", "rollout", "backward"):
        assert probed.phase_bytes(phase) > needed[phase], phase
    for phase in ("optimizer", "evaluation", "save"):
        assert probed.phase_bytes(phase) == needed[phase], phase
    assert probed.allocated_bytes > target.estimate(named).allocated_bytes
