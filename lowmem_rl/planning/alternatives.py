"""The same run done otherwise, for comparison: QLoRA against LoRA, and what plain TRL or PPO would need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.terms import ppo_extra_bytes
from lowmem_rl.memory.workload import on_plain_trl, workload_of
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.search import PlanTarget
from lowmem_rl.planning.step_time import SecondsRange, step_time
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to do the run, what it needs, and how long it takes where that is known."""

    name: str
    expected_bytes: int
    upper_bytes: int
    run: SecondsRange | None

    def __str__(self) -> str:
        hours = "" if self.run is None else f", {self.run.low / 3600:.1f} to {self.run.high / 3600:.1f} hours"
        return f"{self.name}: {self.expected_bytes / GIB:.1f} GiB, up to {self.upper_bytes / GIB:.1f}{hours}"


def alternatives(config: RunConfig, target: PlanTarget, informative_share: float = 1.0) -> tuple[Alternative, ...]:
    """Returns QLoRA, LoRA, plain TRL and PPO at a resolved run's own settings.

    No hours are known of the last two.
    """
    return tuple(_alternatives(config, target, informative_share))


def _alternatives(config: RunConfig, target: PlanTarget, informative_share: float) -> Iterator[Alternative]:
    # What is in 16 bit already needs no expanded copy.
    for name, settings in (("QLoRA", {"model.bits": 4}), ("LoRA", {"model.bits": 16, "rollout.weights": "quantized"})):
        run = with_overrides(config, settings)
        time = step_time(run, target.shape, target.card, informative_share)
        yield _alternative(name, target.estimate(run), time.run if time else None)
    yield from _on_plain_trl(config, target)
    yield _as_ppo(target.estimate(config))


def _on_plain_trl(config: RunConfig, target: PlanTarget) -> Iterator[Alternative]:
    """Yields TRL with this run's wave, and with all rows of a rollout at once, as TRL itself samples them."""
    work, wave, rows = on_plain_trl(workload_of(config, target.shape)), config.rollout_rows, config.rows_per_rollout
    if wave < rows:
        name = f"plain TRL, {wave} rows a wave"
        yield _alternative(name, estimate(work, target.shape, target.card))
    whole = replace(work, rollout_rows=rows)
    yield _alternative(f"plain TRL, {rows} rows at once", estimate(whole, target.shape, target.card))


def _as_ppo(needed: MemoryEstimate) -> Alternative:
    extra = ppo_extra_bytes(needed.workload, needed.shape)
    return Alternative("PPO, with its value model", needed.expected_bytes + extra, needed.upper_bytes + extra, None)


def _alternative(name: str, needed: MemoryEstimate, run: SecondsRange | None = None) -> Alternative:
    return Alternative(name, needed.expected_bytes, needed.upper_bytes, run)
