"""The same run with other methods, for comparison: QLoRA, LoRA, and what plain TRL or PPO would need."""

from dataclasses import dataclass, replace

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.terms import ppo_extra_bytes
from lowmem_rl.memory.workload import on_plain_trl, workload_of
from lowmem_rl.planning.overrides import Settings, with_overrides
from lowmem_rl.planning.search import PlanTarget
from lowmem_rl.planning.step_time import SecondsRange, step_time


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to do the run, what it needs, and how long it takes if that is known."""

    name: str
    expected_bytes: int
    upper_bytes: int
    run: SecondsRange | None = None


def alternatives(config: RunConfig, target: PlanTarget, updated_share: float = 1.0) -> tuple[Alternative, ...]:
    """Returns QLoRA, LoRA, plain TRL and PPO at a resolved run's own settings; no times are known of the last two.

    Of whole weights that learn: over 4 and over 16 bit.
    """
    found, is_whole = [], config.trainable.method == "full"
    names = ("whole weights, 4 bit", "whole weights, 16 bit") if is_whole else ("QLoRA", "LoRA")
    # What is in 16 bit already needs no expanded copy.
    changes: tuple[Settings, ...] = ({"model.bits": 4}, {"model.bits": 16, "rollout.weights": "quantized"})
    for name, settings in zip(names, changes, strict=True):
        run = with_overrides(config, settings)
        time = step_time(run, target.shape, target.card, updated_share)
        found.append(_alternative(name, target.planned(run), time.run if time else None))
    if is_whole:  # the others train adapters, or all weights
        return tuple(found)
    # TRL with this run's wave, and with all rows of a rollout at once, as TRL itself samples them.
    work, rows = on_plain_trl(workload_of(config, target.shape)), config.rows_per_rollout
    whole = replace(work, rollout_rows=rows)
    plain = [(f"plain TRL, {work.rollout_rows} rows a wave", work)] if work.rollout_rows < rows else []
    for name, workload in (*plain, (f"plain TRL, {rows} rows at once", whole)):
        found.append(_alternative(name, estimate(workload, target.shape, target.card)))
    needed = target.planned(config)
    extra = ppo_extra_bytes(needed.workload, needed.shape)
    ppo = Alternative("PPO, with its value model", needed.expected_bytes + extra, needed.upper_bytes + extra)
    return (*found, ppo)


def _alternative(name: str, needed: MemoryEstimate, run: SecondsRange | None = None) -> Alternative:
    return Alternative(name, needed.expected_bytes, needed.upper_bytes, run)
