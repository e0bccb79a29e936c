"""The memory of a run that selects its layers by gradients: at first another run, with an adapter in all candidates."""

from dataclasses import replace

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.memory.terms import Terms, expected_sum
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.trainable.selection import probe_config

_PHASES = ("load", "rollout", "logprobs", "backward")
"""Phases of a round of sampling that is only scored: no weight moves, nothing is evaluated or saved."""


def probe_workload(config: RunConfig, shape: ModelShape) -> Workload:
    """Returns what decides the memory of the rounds that are scored: the optimizer has no states."""
    return replace(workload_of(probe_config(config), shape), state_share=0.0)


def worse_of(run: MemoryEstimate, rounds: MemoryEstimate) -> MemoryEstimate:
    """Returns the estimate of a run in which each phase is that of the run, or of the rounds before it."""
    phases = {name: _worse(run, rounds, name) for name in run.phases}
    allocated = max(run.allocated_bytes, rounds.allocated_bytes)
    return replace(run, phases=phases, allocated_bytes=allocated)


def _worse(run: MemoryEstimate, rounds: MemoryEstimate, phase: str) -> Terms:
    if phase not in _PHASES or phase not in rounds.phases:
        return run.phases[phase]
    return max(run.phases[phase], rounds.phases[phase], key=expected_sum)
