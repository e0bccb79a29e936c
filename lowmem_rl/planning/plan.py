"""The plan of a run: every "auto" chosen, what it needs, what it teaches, how long it takes, what to change.

Pure arithmetic on a config, a model's shape and a budget; a few hundred estimates at most.
"""

from dataclasses import dataclass
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.calibration import Calibration
from lowmem_rl.memory.estimate import MemoryEstimate, Verdict
from lowmem_rl.models.hardware import Card, free_ram_bytes
from lowmem_rl.models.lookup import ModelShape
from lowmem_rl.planning.advice import Advice, advice
from lowmem_rl.planning.alternatives import Alternative, alternatives
from lowmem_rl.planning.frontier import FrontierPoint, frontier, signal_of
from lowmem_rl.planning.search import PlanTarget, choose
from lowmem_rl.planning.step_time import StepTime, step_time
from lowmem_rl.signal.pass_rate import PassRate, unknown
from lowmem_rl.signal.signal_report import SignalReport


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is decided: `config` holds no "auto"."""

    config: RunConfig
    target: PlanTarget
    estimate: MemoryEstimate
    signal: SignalReport
    time: StepTime | None
    """None on a CPU, and on a card whose speed is not known."""
    frontier: tuple[FrontierPoint, ...]
    alternatives: tuple[Alternative, ...]
    advice: tuple[Advice, ...]

    @property
    def memory_verdict(self) -> Verdict:
        return self.estimate.verdict(self.target.budget_bytes)

    @property
    def remedies(self) -> tuple[Advice, ...]:
        """Advice with which a run fits that does not: what costs no learning first, then the fewest settings."""
        spare = self.target.budget_bytes - self.estimate.upper_bytes
        enough = [item for item in self.advice if spare < 0 <= spare + item.saves_bytes]
        return tuple(sorted(enough, key=lambda item: (item.costs_learning, len(item.settings))))

    def to_json(self) -> dict[str, Any]:
        """Returns what `profile --json` prints."""
        return {
            "verdict": {"memory": self.memory_verdict, "signal": self.signal.verdict},
            "peak_bytes": {"expected": self.estimate.expected_bytes, "upper": self.estimate.upper_bytes},
            "peak_phase": self.estimate.peak_phase,
            "budget_bytes": self.target.budget_bytes,
            "phases": self.estimate.to_json_phases(),
            "group": self.signal.to_json(),
            "plan": {
                "micro_batch": self.config.micro_batch,
                "rollout_rows": self.config.rollout_rows,
                "checkpointing": self.config.checkpointing,
                "rollout_engine": self.estimate.workload.rollout_engine,
                "rollout_weights": self.config.rollout_weights,
            },
            "step_seconds": None if self.time is None else self.time.step.to_json(),
            "advice": [item.to_json() for item in self.advice],
            "pass_rate": str(self.signal.pass_rate),
            "calibration": str(self.target.calibration) if self.target.calibration else None,
        }


def plan(
    config: RunConfig,
    shape: ModelShape,
    card: Card | None,
    budget_bytes: int | None = None,
    pass_rate: PassRate | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Returns the plan of a run.

    The budget is what the card offers where none is given; without a card that is a CPU, and the free host RAM.
    """
    if budget_bytes is None:
        budget_bytes = card.offered_bytes if card else free_ram_bytes()
    rate, target = pass_rate or unknown(), PlanTarget(shape, card, budget_bytes, calibration)
    resolved = choose(config, target)
    signal = signal_of(resolved, rate)
    learnt = 1.0 if rate.kind == "unknown" else signal.informative_share
    return Plan(
        config=resolved,
        target=target,
        estimate=target.estimate(resolved),
        signal=signal,
        time=step_time(resolved, shape, card, learnt),
        frontier=frontier(resolved, target, rate),
        alternatives=alternatives(resolved, target, learnt),
        advice=advice(config, resolved, target, rate),
    )
