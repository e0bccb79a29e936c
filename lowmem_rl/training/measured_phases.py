"""What a profiled step took, phase by phase, with what was predicted for the lengths that it met."""

from dataclasses import asdict, replace
from datetime import date
from typing import Literal

from lowmem_rl.memory.calibration import CPU, CalibrationRow
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.first_step import predicted_footprints
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.phases import MEASURED_PHASES
from lowmem_rl.planning.plan import Plan
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, StepLengths


def first_step_rows(
    profiler: MemoryProfiler, plan: Plan, *, step: int = 1, source: Literal["measure", "first step"] = "first step"
) -> tuple[CalibrationRow, ...]:
    """Returns what the profiler saw of the step that a process began with, each phase with its prediction.

    That is for the lengths met, and for what learns in `step` of the schedule.
    """
    predicted = _predicted(profiler.lengths, plan, step)
    # What a run loads and evaluates has other lengths than its first step.
    measured = {
        name: found for name, found in profiler.phases.items() if source == "measure" or name in MEASURED_PHASES
    }
    machine, card = this_machine(), plan.target.card
    versions = environment_record(machine, profiler.device)["versions"]
    return tuple(
        CalibrationRow(
            date=date.today(),
            source=source,
            card=card.key if card else CPU,
            stack=predicted.workload.stack,
            phase=phase,
            predicted=found,
            measured=measured[phase],
            model=asdict(predicted.shape),
            workload=asdict(predicted.workload),
            versions=versions,
        )
        for phase, found in predicted_footprints(predicted).items()
        if phase in measured
    )


def _predicted(lengths: StepLengths, plan: Plan, step: int) -> MemoryEstimate:
    """Returns the prediction for what was really met, not for the limits and the worst period of a schedule."""
    prompt, completion = lengths.prompt_tokens, lengths.completion_tokens
    workload = workload_of(plan.config, plan.target.shape, step)
    kept = plan.estimate.workload.kept_share
    met = replace(workload, prompt_tokens=prompt, completion_tokens=completion, kept_share=kept)
    return estimate(met, plan.target.shape, plan.target.card)
