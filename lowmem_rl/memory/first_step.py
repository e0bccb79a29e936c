"""What an estimate predicts for the phases of a first step, in which the optimizer has no states before it steps."""

from lowmem_rl.memory.calibration import Footprint, footprint
from lowmem_rl.memory.estimate import MemoryEstimate

BEFORE_STATES = ("load", "rollout", "logprobs", "backward")
"""Phases of a first step in which the optimizer has no states yet: they appear when it steps."""
STATES = ("optimizer states", "paged optimizer states")


def predicted_footprints(predicted: MemoryEstimate) -> dict[str, Footprint]:
    """Returns what an estimate predicts for each phase of a first step."""
    return {
        phase: footprint([one for one in parts if one.name not in STATES or phase not in BEFORE_STATES])
        for phase, parts in predicted.phases.items()
    }
