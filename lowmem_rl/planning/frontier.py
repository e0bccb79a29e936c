"""Group size against memory, signal and time: what a larger group costs, and what it buys.

Micro-batch and wave stay as they are, so memory stays too: a larger group is paid for in time alone.
"""

from dataclasses import dataclass

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import Settings, divisors, with_overrides
from lowmem_rl.planning.search import PlanTarget
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.signal.signal_report import signal_of

GROUP_SIZES = (4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """A run with another group size and nothing else changed."""

    group_size: int
    expected_bytes: int
    upper_bytes: int
    informative_share: float
    relative_step_time: float
    """Against the wanted group size."""


def frontier(config: RunConfig, target: PlanTarget, pass_rate: PassRate) -> tuple[FrontierPoint, ...]:
    """Returns the usual group sizes and the wanted one, from the smallest up; the config is resolved."""
    wanted, points = target.relative_step_time(config), []
    for group_size in sorted({*GROUP_SIZES, config.grpo.group_size}):
        run = with_group(config, group_size)
        needed, share = target.planned(run), signal_of(run, pass_rate).informative_share
        time = target.relative_step_time(run) / wanted
        points.append(FrontierPoint(group_size, needed.expected_bytes, needed.upper_bytes, share, time))
    return tuple(points)


def with_group(config: RunConfig, group_size: int) -> RunConfig:
    """Returns the run with another group; micro-batch and wave stay as far as they divide its rows."""
    shape = keeping_batch_shape(config, group_size, config.grpo.prompts_per_step)
    return with_overrides(config, {"grpo.group_size": group_size, **shape})


def keeping_batch_shape(config: RunConfig, group_size: int, prompts_per_step: int) -> Settings:
    """Returns the memory settings that keep micro-batch and wave while groups or prompts change."""
    return {
        "memory.micro_batch": divisors(group_size * prompts_per_step, config.micro_batch)[-1],
        "memory.rollout_rows": config.rollout_rows,
    }
