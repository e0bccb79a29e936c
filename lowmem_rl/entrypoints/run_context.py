"""What all phases of one run in one process share."""

from dataclasses import dataclass, replace
from functools import partial

from lowmem_rl.checkpointing.resume import ResumeState
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.preflight import PreparedRun
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.planning.oom_advice import suggest_fix
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.telemetry.events import Event, Listener, Note
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler
from lowmem_rl.telemetry.trackers import Trackers
from lowmem_rl.training.peak_memory import PeakMemory
from lowmem_rl.training.shutdown import ShutdownPolicy
from lowmem_rl.training.signals import StopSignal


@dataclass(frozen=True, slots=True)
class RunContext:
    """Where the run is, what it is made of, and how it ends."""

    run_dir: RunDir
    prepared: PreparedRun
    listen: Listener
    resume_state: ResumeState
    is_new: bool
    stop: StopSignal
    oom_policy: OomPolicy
    profiler: MemoryProfiler
    peaks: PeakMemory
    trackers: Trackers

    @classmethod
    def of(
        cls,
        run_dir: RunDir,
        prepared: PreparedRun,
        listen: Listener,
        resume_state: ResumeState | None,
        stop: StopSignal,
    ) -> "RunContext":
        """Starts from `resume_state`, or from scratch if it is None."""
        state, plan = resume_state or ResumeState(), prepared.plan

        def note(text: str) -> None:
            listen(Note(text))

        suggest = partial(suggest_fix, plan.config, plan.target)
        oom_policy = OomPolicy(plan.config, run_dir.recoveries, note, suggest, state.step)
        profiler = MemoryProfiler(prepared.device)
        peaks = PeakMemory(
            run_dir, prepared.device, plan, state, profiler, note, is_undisturbed=lambda: not oom_policy.times
        )
        trackers = Trackers(plan.config.logging.report_to, note)

        def listen_all(event: Event) -> None:
            trackers.on_event(event)
            listen(event)

        is_new = resume_state is None
        return cls(run_dir, prepared, listen_all, state, is_new, stop, oom_policy, profiler, peaks, trackers)

    def with_config(self, config: RunConfig) -> "RunContext":
        """Returns the context of the run that `config` has become before its first step: planned again."""
        estimate = self.prepared.plan.target.planned(config)
        plan = replace(self.prepared.plan, config=config, estimate=estimate)
        self.peaks.plan = plan
        return replace(self, prepared=replace(self.prepared, plan=plan))

    @property
    def config(self) -> RunConfig:
        """The run's config with every "auto" chosen."""
        return self.prepared.plan.config

    @property
    def shutdown(self) -> ShutdownPolicy:
        """How the run can end early."""
        return ShutdownPolicy(self.run_dir, self.config, self.stop, self.note, is_new=self.is_new)

    def note(self, text: str) -> None:
        """Reports something that the user should know."""
        self.listen(Note(text))
