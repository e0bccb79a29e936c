"""What the timer of an arm adds up."""

import time

import pytest

from lowmem_rl.engine.device import Device


@pytest.mark.slow  # loads transformers
def test_the_phases_of_a_timed_step_sum_to_the_step() -> None:
    from lowmem_rl_bench.step.arm_timer import ArmTimer

    timer = ArmTimer(Device("cpu", "float32"))
    timer.restart()
    with timer.phase("rollout"):
        time.sleep(0.02)
    with timer.phase("update"):
        sum(range(100_000))
    found = timer.read()
    assert found["phases"]["rollout"]["wall"] >= 0.02 > found["phases"]["rollout"]["cpu"]
    assert found["phases"]["scoring"] == {"wall": 0, "cpu": 0}
    for clock in ("wall", "cpu"):
        assert found[clock] == pytest.approx(sum(spent[clock] for spent in found["phases"].values()))
