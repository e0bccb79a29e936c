"""The memory that a run held: its peak, and the peaks of the phases of its first step, beside what was predicted."""

from collections.abc import Callable
from typing import Any

from lowmem_rl.checkpointing.resume import ResumeState
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.device_memory import peak_bytes
from lowmem_rl.memory.calibration import store
from lowmem_rl.planning.plan import Plan
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, measures_phases_apart
from lowmem_rl.training.measured_phases import first_step_rows


class PeakMemory:
    """Keeps peak.json; a run that goes on keeps what its first process metered."""

    def __init__(self, run_dir: RunDir, device: Device, plan: Plan, standing: ResumeState) -> None:
        self.run_dir, self.device, self.plan, self.standing = run_dir, device, plan, standing
        self.meter = MemoryProfiler(device)
        self.are_apart = measures_phases_apart(device)

    def attach(self, trainer: Any) -> None:
        """Meters the trainer's first step, where it is the run's and phases can be told apart."""
        if self.are_apart and self.standing.checkpoint is None:
            self.meter.attach(trainer)

    @property
    def highest_bytes(self) -> int:
        """The most that was held so far: the meter sets the system's own counters of it back."""
        return max(self.meter.highest_bytes, peak_bytes(self.device), self.standing.peak_bytes)

    def write(self) -> None:
        """Writes the highest peak, and those of the phases of the step that was metered."""
        was_metered = self.are_apart and "backward" in self.meter.phases
        phases = self.meter.to_json() if was_metered else self.standing.phases
        write_json(self.run_dir.peak, {"peak_bytes": self.highest_bytes, **phases})

    def remember(self, tell: Callable[[str], None]) -> None:
        """Keeps what the first step took on this card beside what was predicted: later predictions use it."""
        if not self.device.is_gpu:
            return
        try:
            store(first_step_rows(self.meter, self.plan), tell)
        except Exception as error:  # noqa: BLE001  # a record of memory must never cost the run
            tell(f"the first step's memory is not recorded: {type(error).__name__}: {error}")
