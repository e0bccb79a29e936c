"""The layers of a step: within the choice, never none, and the same from whatever step a run continues."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.trainable.schedule import LayerSchedule

DEPTH = 12


def schedule(depth: int = DEPTH, seed: int = 0, **trainable: Any) -> LayerSchedule:
    return LayerSchedule.of(RunConfig(seed=seed, trainable=TrainableConfig(**trainable)), depth)


@st.composite
def schedules(draw: st.DrawFn) -> LayerSchedule:
    kind = draw(st.sampled_from(["fixed", "gradual_unfreezing", "gradual_freezing", "lisa", "badam"]))
    chosen = draw(st.sets(st.integers(0, DEPTH - 1), min_size=1))
    is_drawn = kind in ("lisa", "badam")
    return schedule(
        seed=draw(st.integers(0, 9)),
        layers=",".join(map(str, sorted(chosen))),
        schedule=kind,
        every=1 if kind == "fixed" else draw(st.integers(1, 7)),
        active=draw(st.integers(1, len(chosen))) if is_drawn else 1,
        order=draw(st.sampled_from(["auto", "ascending", "descending", "random"])) if kind != "lisa" else "auto",
    )


def by_step(plan: LayerSchedule, first: int = 1, last: int = 60) -> list[tuple[int, ...]]:
    return [plan.at(step) for step in range(first, last)]


@given(schedules(), st.integers(1, 59))
def test_it_stays_within_the_choice_and_a_resumed_run_has_the_same_tail(plan: LayerSchedule, resumed: int) -> None:
    found = by_step(plan)
    for layers in found:
        assert layers
        assert set(layers) <= set(plan.layers)
        assert list(layers) == sorted(set(layers))
    again = LayerSchedule(plan.trainable, plan.layers, plan.seed)
    assert by_step(again, resumed) == found[resumed - 1 :]


@given(schedules())
def test_it_changes_only_between_two_periods(plan: LayerSchedule) -> None:
    found = by_step(plan)
    for step in range(2, 60):
        if found[step - 1] != found[step - 2]:
            assert (step - 1) % plan.trainable.every == 0


@given(schedules(), st.integers(1, 59))
def test_below_the_lowest_layer_so_far_nothing_has_learned(plan: LayerSchedule, step: int) -> None:
    assert plan.lowest_until(step) == min(min(layers) for layers in by_step(plan, 1, step + 1))


def test_unfreezing_begins_with_the_last_layer() -> None:
    plan = schedule(layers="first:3", schedule="gradual_unfreezing", every=2)
    assert by_step(plan, 1, 9) == [(2,)] * 2 + [(1, 2)] * 2 + [(0, 1, 2)] * 4
    assert schedule(layers="first:3", schedule="gradual_unfreezing", order="ascending").at(1) == (0,)


def test_freezing_ends_with_the_last_layer() -> None:
    plan = schedule(layers="first:3", schedule="gradual_freezing", every=2)
    assert by_step(plan, 1, 9) == [(0, 1, 2)] * 2 + [(1, 2)] * 2 + [(2,)] * 4


def test_lisa_draws_so_many_layers_each_period_and_in_time_all() -> None:
    found = by_step(schedule(schedule="lisa", active=2, every=1), last=200)
    assert {len(layers) for layers in found} == {2}
    assert {layer for layers in found for layer in layers} == set(range(DEPTH))
    assert found != by_step(schedule(schedule="lisa", active=2, every=1, seed=1), last=200)


@pytest.mark.parametrize("order", ["auto", "ascending", "descending", "random"])
@pytest.mark.parametrize("active", [1, 4, 5])
def test_badam_visits_each_layer_once_a_cycle(order: Any, active: int) -> None:
    plan = schedule(schedule="badam", every=3, active=active, order=order)
    blocks = -(-DEPTH // active)
    for cycle in range(3):
        visited = [plan.at((cycle * blocks + number) * 3 + 1) for number in range(blocks)]
        assert sorted(layer for block in visited for layer in block) == list(range(DEPTH))


def test_badam_draws_another_order_each_cycle() -> None:
    found = by_step(schedule(schedule="badam", every=1), last=1 + 2 * DEPTH)
    assert found[:DEPTH] != found[DEPTH:]
    assert by_step(schedule(schedule="badam", every=1, order="descending"), last=4) == [(11,), (10,), (9,)]


def test_more_layers_at_once_than_are_chosen_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainable.active = 3, but trainable.layers = 'last:2' chooses 2"):
        schedule(layers="last:2", schedule="lisa", active=3)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"schedule": "gradual_freezing", "every": 2}, 1),
        ({"schedule": "freezeout"}, 1),
        ({"schedule": "gradual_unfreezing", "every": 2, "layers": "last:3"}, 5),
        ({"schedule": "gradual_unfreezing", "every": 8}, 17),  # the run ends before all learn
        ({"schedule": "badam", "order": "descending", "every": 1, "active": 5}, 2),  # 7-11, 2-6, 0-1, 7-11
        ({"schedule": "badam", "order": "descending", "every": 1}, 12),
    ],
)
def test_the_heaviest_step_is_the_first_with_most_layers(settings: dict[str, Any], step: int) -> None:
    plan = schedule(**settings)
    heaviest = plan.heaviest_step(20)
    weights = [(len(plan.at(one)), -min(plan.at(one))) for one in range(1, 21)]
    assert weights.index(max(weights)) + 1 == heaviest == step
