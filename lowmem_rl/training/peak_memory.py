"""The memory that a run held: its peak, and the peaks of the phases of its first step."""

from collections.abc import Callable

from lowmem_rl.checkpointing.resume import ResumeState
from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.engine.device import Device, peak_bytes
from lowmem_rl.memory.calibration import store
from lowmem_rl.planning.plan import Plan
from lowmem_rl.storage.run_dir import Row, RunDir, write_json
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, measures_each_phase
from lowmem_rl.training.measured_phases import first_step_rows


class PeakMemory:
    """Keeps peak.json; a resumed run keeps what its first process profiled."""

    def __init__(
        self,
        run_dir: RunDir,
        device: Device,
        plan: Plan,
        resume_state: ResumeState,
        profiler: MemoryProfiler,
        report: Callable[[str], None],
        is_undisturbed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_undisturbed` returns whether the first step was the one that the plan predicts."""
        self.run_dir, self.device, self.plan, self.resume_state = run_dir, device, plan, resume_state
        self.profiler, self.report, self.is_undisturbed = profiler, report, is_undisturbed
        self.has_phases = measures_each_phase(device)
        profiler.is_on = self.has_phases and resume_state.checkpoint is None

    @property
    def highest_bytes(self) -> int:
        """The most that was held so far: the profiler restarts the system's own counters."""
        return max(self.profiler.highest_bytes, peak_bytes(self.device), self.resume_state.peak_bytes)

    def on_step(self, row: Row, trainer: TrainerLike) -> None:
        """Adds the peak to the step's row."""
        row["peak_bytes"] = self.highest_bytes

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Writes what the first step took, and keeps it for later predictions."""
        if trainer.step == 1:
            self.write()
            if self.device.is_gpu and self.is_undisturbed():
                self._remember()

    def write(self) -> None:
        """Writes the highest peak, and those of the phases of the profiled step."""
        was_profiled = self.has_phases and "backward" in self.profiler.phases
        phases = self.profiler.to_json() if was_profiled else self.resume_state.phases
        write_json(self.run_dir.peak, {"peak_bytes": self.highest_bytes, **phases})

    def _remember(self) -> None:
        try:
            store(first_step_rows(self.profiler, self.plan), self.report)
        except Exception as error:  # noqa: BLE001  # a record of memory must never cost the run
            self.report(f"the first step's memory is not recorded: {type(error).__name__}: {error}")
