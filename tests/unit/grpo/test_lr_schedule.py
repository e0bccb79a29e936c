import pytest

from lowmem_rl.config.run_config import OptimizerConfig
from lowmem_rl.grpo.lr_schedule import multistep_factor

OPTIMIZER = OptimizerConfig(schedule="multistep", milestones=(80, 90), decay=0.316, warmup_steps=10)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (9, 1.0), (79, 1.0), (80, 0.316), (90, 0.316**2), (99, 0.316**2)]
)
def test_the_rate_rises_then_falls_at_each_milestone(step, factor) -> None:
    assert multistep_factor(step, OPTIMIZER) == pytest.approx(factor)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert multistep_factor(0, OptimizerConfig(schedule="multistep", milestones=(5,))) == 1.0
