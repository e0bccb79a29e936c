"""What the planner makes of states kept while sampling: where they pay, what they take, and which runs have none."""

from dataclasses import replace

import pytest

from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.hardware import find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.advice import advise
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.search import PlanTarget, resolve_auto
from lowmem_rl.planning.step_cost import StepCost, step_work
from lowmem_rl.signal.pass_rate import unknown
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.units import GIB

SHAPE = load_shape("Qwen/Qwen2.5-1.5B-Instruct")
FIXED = {"memory.micro_batch": 4, "memory.checkpointing": "none", "rollout.weights": "quantized"}
KEPT, WHOLE = {"memory.kept_states": "host"}, {"memory.kept_states": "off"}


def run_of(**settings: object) -> RunConfig:
    return with_overrides(RunConfig(), FIXED | {key.replace("__", "."): value for key, value in settings.items()})


LAST = run_of(trainable__layers="last:7")


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({"trainable__layers": "last:7"}, "host"),
        ({"trainable__layers": "all"}, "off"),
        ({"trainable__layers": "first:7"}, "off"),
        ({"trainable__layers": "last:7", "rollout__engine": "generate"}, "off"),
        ({"trainable__layers": "last:7", "trainable__method": "full", "trainable__extra": ["norms"]}, "off"),
        ({"trainable__layers": "none", "trainable__method": "full", "trainable__extra": ["norm"]}, "off"),
        ({"trainable__layers": "last:7", "trainable__method": "full"}, "host"),
        ({"trainable__layers": "last:7", "trainable__schedule": "lisa"}, "host"),
        ({"trainable__layers": "all", "trainable__schedule": "lisa"}, "off"),
    ],
)
def test_states_are_kept_if_frozen_layers_are_below_all_that_learn(settings: dict[str, object], chosen: str) -> None:
    found = resolve_auto(run_of(**settings), SHAPE, 500 * GIB, None)
    assert found.memory.kept_states == chosen


H100 = find_card("h100")
ON_CARD = {"memory.kept_states": "card"}


@pytest.mark.parametrize(
    ("card", "layers", "chosen"),
    [
        ("a6000", "last:7", "host"),
        ("h100", "last:7", "card"),  # it computes so fast that the bus counts
        ("a6000", "all", "off"),
        ("a6000", "first:7", "off"),
    ],
)
def test_on_a_card_they_go_to_host_memory_if_that_is_as_fast(card: str, layers: str, chosen: str) -> None:
    run = with_overrides(LAST, {"trainable.layers": layers, "rollout.weights": "merged", "grpo.prompts_per_step": 32})
    assert resolve_auto(run, SHAPE, 48 * GIB, find_card(card)).memory.kept_states == chosen


def test_on_a_card_states_that_would_save_less_than_two_per_cent_are_not_kept() -> None:
    """Of a hundred tokens sampled from a prompt of eight, the update is a small part."""
    short = {"trainable.layers": "last:27", "grpo.max_prompt_tokens": 8, "grpo.max_completion_tokens": 100}
    target = PlanTarget(SHAPE, H100, 80 * GIB)
    off, host = (with_overrides(LAST, short | how) for how in (WHOLE, KEPT))
    assert target.relative_step_time(host) > target.relative_step_time(off) / 1.02
    assert resolve_auto(with_overrides(LAST, short), SHAPE, 80 * GIB, H100).memory.kept_states == "off"


def test_only_states_in_host_memory_cross_the_bus() -> None:
    times = [
        PlanTarget(SHAPE, H100, 80 * GIB).relative_step_time(with_overrides(LAST, how))
        for how in (ON_CARD, KEPT, WHOLE)
    ]
    assert times == sorted(times)
    sent, read = (
        sum(
            one.times * one.bus_bytes
            for one in step_work(with_overrides(LAST, KEPT), SHAPE)
            if (one.name == "update") == is_read
        )
        for is_read in (False, True)
    )
    tokens = 64 * (LAST.grpo.max_prompt_tokens + LAST.grpo.max_completion_tokens)
    assert sent == read == tokens * SHAPE.hidden_size * 2
    assert not any(one.bus_bytes for one in step_work(with_overrides(LAST, ON_CARD), SHAPE))


def test_where_they_are_on_a_card() -> None:
    off, host, card = (
        estimate(workload_of(with_overrides(LAST, how), SHAPE), SHAPE, H100) for how in (WHOLE, KEPT, ON_CARD)
    )
    size = 2 * (8 * LAST.grpo.max_prompt_tokens + 64 * (LAST.grpo.max_completion_tokens + 8)) * SHAPE.hidden_size
    assert states_in(card) == dict.fromkeys(("rollout", "backward", "optimizer"), size)
    assert states_in(host) == states_in(off) == {}
    assert host.host_bytes == off.host_bytes + size
    assert card.host_bytes == off.host_bytes
    assert card.phase_bytes("optimizer") == host.phase_bytes("optimizer") + size


def test_advice_brings_them_from_the_card_to_host_memory() -> None:
    target = PlanTarget(SHAPE, H100, 80 * GIB)
    run = with_overrides(LAST, ON_CARD)
    found = [item.settings for item in advise(run, run, target, unknown())]
    assert {"memory.kept_states": "host"} in found


def needed(**settings: object) -> tuple[MemoryEstimate, MemoryEstimate]:
    """Returns the estimates with and without kept states, on a CPU."""
    config = with_overrides(LAST, {key.replace("__", "."): value for key, value in settings.items()})
    with_states, without = (workload_of(with_overrides(config, kept), SHAPE) for kept in (KEPT, WHOLE))
    return estimate(with_states, SHAPE), estimate(without, SHAPE)


def states_in(found: MemoryEstimate) -> dict[str, int]:
    return {phase: size for phase, parts in found.to_json_phases().items() if (size := parts.get("kept states"))}


def test_they_take_hidden_states_of_each_row_and_of_each_prompt_once() -> None:
    found, without = needed()
    rows, prompts, grpo = 64, 8, LAST.grpo
    tokens = prompts * grpo.max_prompt_tokens + rows * (grpo.max_completion_tokens + 8)
    size = tokens * SHAPE.hidden_size * 4  # float32 on a CPU
    assert states_in(found) == dict.fromkeys(("rollout", "backward", "optimizer"), size)
    assert states_in(without) == {}
    read = 4 * (grpo.max_prompt_tokens + grpo.max_completion_tokens) * SHAPE.hidden_size * 4
    seen = 2 * 64 * 8 * SHAPE.hidden_size * 4
    assert found.phase_bytes("rollout") == without.phase_bytes("rollout") + size + seen
    assert found.phase_bytes("backward") == without.phase_bytes("backward") + size + read


def test_a_rollout_of_several_steps_holds_them_between_the_steps_and_in_checkpoints() -> None:
    found, without = needed(grpo__steps_per_rollout=2)
    size = states_in(found)["rollout"]
    assert set(states_in(found)) == {"rollout", "logprobs", "backward", "optimizer", "evaluation", "save"}
    assert found.disk_bytes == without.disk_bytes + 2 * size


def test_groups_that_are_sampled_instead_of_dead_ones_have_states_of_their_own() -> None:
    once, again = (states_in(needed(grpo__resample_rounds=rounds)[0])["rollout"] for rounds in (0, 1))
    assert again == 2 * once


def test_if_they_do_not_fit_all_layers_are_computed() -> None:
    lean = resolve_auto(LAST, SHAPE, 1, None)
    assert lean.memory.kept_states == "off"
    upper = estimate(workload_of(lean, SHAPE), SHAPE).upper_bytes
    assert resolve_auto(LAST, SHAPE, upper, None).memory.kept_states == "off"


def work_of(settings: dict[str, object], name: str) -> StepCost:
    config = with_overrides(LAST, {"grpo.beta": 0.1} | settings)
    return next(one for one in step_work(config, SHAPE) if one.name == name)


def test_forward_passes_are_those_of_the_layers_from_the_lowest_that_learns() -> None:
    share = 7 / SHAPE.num_layers
    for name, whole_passes, passes in (("update", 1 + share, 2 * share), ("reference", 1.0, share)):
        ours, whole = work_of(KEPT, name), work_of(WHOLE, name)
        assert ours.expanded_bytes / whole.expanded_bytes == pytest.approx(passes / whole_passes)
        assert ours.flops < whole.flops


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"trainable.layers": "last:7"}, False),
        ({"trainable.layers": "all"}, True),
        ({"trainable.layers": "0,5"}, True),
        ({"trainable.layers": "all", "trainable.schedule": "lisa"}, False),
        ({"trainable.layers": "last:7", "rollout.engine": "generate"}, True),
        ({"trainable.layers": "last:7", "trainable.method": "full", "trainable.extra": ["embed_tokens"]}, True),
    ],
)
def test_states_that_no_step_could_read_are_refused(settings: dict[str, object], named: bool) -> None:
    broken = list(broken_rules(with_overrides(RunConfig(), KEPT | settings)))
    assert [rule.key for rule in broken] == ["memory.kept_states"] * named
    assert all(rule.fix.startswith('set it to "auto"') for rule in broken)


def test_the_lowest_layer_of_a_step_follows_the_schedule() -> None:
    def lowest(*steps: int, **trainable: object) -> list[int | None]:
        config = with_overrides(RunConfig(), {f"trainable.{key}": value for key, value in trainable.items()})
        return [LayerSchedule.of(config, 8).lowest_at(step) for step in steps]

    assert lowest(1, layers="last:3") == [5]
    assert lowest(1, 3, 9, layers="last:3", schedule="gradual_unfreezing", every=2) == [7, 6, 5]
    assert lowest(1, layers="last:3", method="full", extra=["norms"]) == [0]
    assert lowest(1, layers="none", method="full", extra=["norm"]) == [None]


def test_without_a_rollout_of_ours_nothing_is_counted() -> None:
    work: Workload = workload_of(with_overrides(LAST, KEPT), SHAPE)
    assert work.kept_rows == 64
    assert states_in(estimate(replace(work, kept_rows=0), SHAPE)) == {}
