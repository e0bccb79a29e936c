"""Group size against memory, signal and time: what a larger group costs, and what it buys.

Micro-batch and wave stay as they are, so memory stays too: a larger group is paid for in time alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.planning.overrides import Settings, divisors, with_overrides
from lowmem_rl.planning.search import PlanTarget
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.signal.signal_report import SignalReport, signal_report

GROUP_SIZES = (4, 8, 16, 32, 64)
JUDGES = frozenset(
    {
        "any_answer",
        "boxed_answer",
        "countdown",
        "matrix_frobenius",
        "matrix_l1",
        "matrix_rows",
        "program_synthesis",
    }
)
"""Rewards that say whether an answer is right; the others pay for something else."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """A run with another group size, everything else alike."""

    group_size: int
    expected_bytes: int
    upper_bytes: int
    signal: SignalReport
    relative_step_time: float
    """Against the wanted group size."""

    @property
    def informative_share(self) -> float:
        return self.signal.informative_share


def frontier(config: RunConfig, target: PlanTarget, pass_rate: PassRate) -> tuple[FrontierPoint, ...]:
    """Returns the usual group sizes and the wanted one, from the smallest up; the config is resolved."""
    wanted = target.relative_step_time(config)
    return tuple(_points(config, target, pass_rate, wanted))


def with_group(config: RunConfig, group_size: int) -> RunConfig:
    """Returns the run with another group, micro-batch and wave held as far as they divide its rows."""
    return with_overrides(
        config, {"grpo.group_size": group_size, **keeping_batch_shape(config, group_size, config.grpo.prompts_per_step)}
    )


def keeping_batch_shape(config: RunConfig, group_size: int, prompts_per_step: int) -> Settings:
    """Returns the memory settings that keep micro-batch and wave while groups or prompts change."""
    rows = group_size * prompts_per_step
    return {
        "memory.micro_batch": divisors(rows, config.micro_batch)[-1],
        "memory.rollout_rows": config.rollout_rows,
    }


def signal_of(config: RunConfig, pass_rate: PassRate) -> SignalReport:
    """Returns what a run's groups will teach.

    The pass rate is that of the heaviest reward that judges answers; where none does, of the heaviest.
    """
    grpo, paid = config.grpo, {name: weight for name, weight in config.rewards.items() if weight}
    answer = max(paid, key=lambda name: (name in JUDGES, paid[name]))
    return signal_report(
        grpo.group_size,
        grpo.prompts_per_step,
        pass_rate,
        grpo.scale_rewards,
        pairwise=grpo.pairwise,
        judged_by=answer,
        paid_besides=[name for name in paid if name != answer and name not in JUDGES],
    )


def _points(config: RunConfig, target: PlanTarget, pass_rate: PassRate, wanted: float) -> Iterator[FrontierPoint]:
    for group_size in sorted({*GROUP_SIZES, config.grpo.group_size}):
        run = with_group(config, group_size)
        needed = target.estimate(run)
        yield FrontierPoint(
            group_size=group_size,
            expected_bytes=needed.expected_bytes,
            upper_bytes=needed.upper_bytes,
            signal=signal_of(run, pass_rate),
            relative_step_time=target.relative_step_time(run) / wanted,
        )
