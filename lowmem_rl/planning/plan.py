"""The plan of a run: every "auto" chosen, what it needs, what it teaches, how long it takes.

Pure arithmetic on a config, a model's shape and a budget. What else could be done is computed by `explain`, if asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, Verdict
from lowmem_rl.models.hardware import Card, free_ram_bytes
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.advice import Advice
from lowmem_rl.planning.frozen_bits import why_these_bits
from lowmem_rl.planning.process_figure import ProcessFigure, process_figure
from lowmem_rl.planning.search import PlanTarget, choose
from lowmem_rl.planning.step_time import StepTime, step_time
from lowmem_rl.planning.trainable_words import trainable_words
from lowmem_rl.signal.pass_rate import PassRate, unknown
from lowmem_rl.signal.signal_report import SignalReport, signal_of

if TYPE_CHECKING:
    from lowmem_rl.memory.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is decided: `config` holds no "auto"."""

    written: RunConfig
    """As its user wrote it."""
    config: RunConfig
    target: PlanTarget
    estimate: MemoryEstimate
    signal: SignalReport

    @property
    def memory_verdict(self) -> Verdict:
        return self.estimate.verdict(self.target.budget_bytes)

    @property
    def keeps_copies(self) -> bool:
        """True if expanded copies of layers, or their memory, are kept between rollouts."""
        return self.estimate.workload.kept_share > 0

    @property
    def why_these_bits(self) -> str | None:
        """Why `model.bits = "auto"` became what it is; None if the user has set it."""
        return why_these_bits(self.written, self.config, self.target)

    @property
    def process(self) -> ProcessFigure | None:
        """What the estimate's process assumes; None on a CPU."""
        return process_figure(self.estimate, self.target)

    @property
    def time(self) -> StepTime | None:
        """None on a CPU, and on a card whose speed is not known."""
        return step_time(self.config, self.target.shape, self.target.card, self.signal.updated_share)

    def to_json(self, advice: Iterable[Advice] = ()) -> dict[str, Any]:
        """Returns what `profile --json` prints; `advice` is not part of a plan."""
        time, process = self.time, self.process
        return {
            "verdict": {"memory": self.memory_verdict, "signal": self.signal.verdict},
            "peak_bytes": {"expected": self.estimate.expected_bytes, "upper": self.estimate.upper_bytes},
            "process_bytes": None if process is None else process.to_json(),
            "peak_phase": self.estimate.peak_phase,
            "budget_bytes": self.target.budget_bytes,
            "phases": self.estimate.to_json_phases(),
            "group": self.signal.to_json(),
            "plan": {
                "bits": self.config.model.bits,
                "micro_batch": self.config.micro_batch,
                "rollout_rows": self.config.rollout_rows,
                "checkpointing": self.config.checkpointing,
                "kept_states": self.config.memory.kept_states,
                "rollout_engine": self.estimate.workload.rollout_engine,
                "rollout_weights": self.config.rollout_weights,
            },
            "step_seconds": None if time is None else time.step.to_json(),
            "advice": [item.to_json() for item in advice],
            "trainable": list(trainable_words(self.written, self.config, self.target)),
            "pass_rate": str(self.signal.pass_rate),
            "calibration": str(self.target.calibration) if self.target.calibration else None,
        }


def plan(
    config: RunConfig,
    shape: ModelShape,
    card: Card | None,
    budget_bytes: int | None = None,
    pass_rate: PassRate | None = None,
    calibration: "Calibration | None" = None,
) -> Plan:
    """Returns the plan of a run.

    Without a budget it is what the card offers; without a card that is a CPU, and the free host RAM.
    """
    if budget_bytes is None:
        budget_bytes = card.offered_bytes if card else free_ram_bytes()
    target = PlanTarget(shape, card, budget_bytes, calibration)
    resolved = choose(config, target)
    return Plan(config, resolved, target, target.planned(resolved), signal_of(resolved, pass_rate or unknown()))
