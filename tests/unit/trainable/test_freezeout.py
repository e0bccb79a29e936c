"""FreezeOut's stopping times and rates: the paper's equations on plain numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import GrpoConfig, RunConfig, TrainableConfig
from lowmem_rl.trainable.freezeout import rate, stops
from lowmem_rl.trainable.schedule import LayerSchedule


def test_the_first_layer_stops_at_half_of_the_run_and_the_last_at_its_end() -> None:
    assert stops(3, 100, 1) == (50, 75, 100)
    assert stops(1, 100, 1) == (100,)
    assert stops(3, 100, 4) == (52, 76, 100)  # whole rollouts


def test_a_rate_falls_from_the_runs_to_nothing_and_stays_there() -> None:
    assert [rate(done, 50) for done in (0, 25, 50, 60)] == pytest.approx([1, 0.5, 0, 0])


@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 4))
def test_layers_stop_in_order_and_only_once_their_rate_is_nothing(count: int, steps: int, rollout_steps: int) -> None:
    grpo = GrpoConfig(steps=steps * rollout_steps, steps_per_rollout=rollout_steps)
    config = RunConfig(grpo=grpo, trainable=TrainableConfig(schedule="freezeout"))
    plan = LayerSchedule.of(config, count)
    before = tuple(range(count))
    for step in range(1, grpo.steps + 2):
        layers = plan.at(step)
        assert layers == before[len(before) - len(layers) :]
        assert layers == before or (step - 1) % rollout_steps == 0
        stopped = set(before) - set(layers)
        assert all(rate(step - 1, plan.stops[layer]) == pytest.approx(0, abs=1e-9) for layer in stopped)
        before = layers
    assert before == (count - 1,)
