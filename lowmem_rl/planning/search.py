"""What "auto" stands for: micro-batch, checkpointing, rollout wave and rollout weights that make a run fastest.

A choice fits when its upper estimate does. Time and memory split in two: the wave and the weights it is sampled with
decide the rollout, micro-batch and checkpointing decide the update, and the peak is the worse of both. So each half is
searched with the other at its most frugal, and the two winners are put together. An expanded copy of the weights is
one choice among others: it competes with a larger wave by the time of a step, and never takes what a run needs to fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.calibration import Calibration
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.workload import Workload, engine_of, workload_of
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.lookup import ModelShape
from lowmem_rl.planning.overrides import divisors, with_overrides
from lowmem_rl.planning.step_time import relative_step_time

AS_FAST = 1.02
"""Of choices within two per cent of the fastest, the one that needs least is taken: estimates can be wrong."""
MOST_ROWS = 1024
"""Rows beyond which neither sampling nor learning gets faster on any card."""

Choice = dict[str, Any]
"""Values by dotted key."""


@dataclass(frozen=True, slots=True)
class PlanTarget:
    """What a run is planned for: a model, a card (None is a CPU) and the bytes it may use."""

    shape: ModelShape
    card: Card | None
    budget_bytes: int
    calibration: Calibration | None = None
    """What was measured on this kind of card before."""

    def estimate(self, config: RunConfig) -> MemoryEstimate:
        """Returns what a resolved run needs here, corrected by what was measured here."""
        found = self._estimate(config)
        return self.calibration.apply(found, self.card) if self.calibration else found

    def _estimate(self, config: RunConfig) -> MemoryEstimate:
        return _estimate_of(workload_of(config, self.shape), self.shape, self.card)

    def upper_bytes(self, config: RunConfig) -> int:
        return self.estimate(config).upper_bytes

    def fits(self, config: RunConfig) -> bool:
        return self.estimate(config).verdict(self.budget_bytes) == "fits"

    def relative_step_time(self, config: RunConfig) -> float:
        """Returns a number that orders resolved runs by the time of a step."""
        return relative_step_time(config, self.shape, self.card)


@lru_cache(maxsize=1024)
def _estimate_of(workload: Workload, shape: ModelShape, card: Card | None) -> MemoryEstimate:
    """Returns the estimate, which is pure: half of what advice asks for has been asked before."""
    return estimate(workload, shape, card)


def resolve_auto(config: RunConfig, shape: ModelShape, budget_bytes: int, card: Card | None) -> RunConfig:
    """Returns the run with every "auto" chosen: the fastest that fits, else the one that needs least."""
    return choose(config, PlanTarget(shape, card, budget_bytes))


def choose(config: RunConfig, target: PlanTarget) -> RunConfig:
    """Returns the run with every "auto" chosen for the target; the same input gives the same choice."""
    halves = (_choices(_rollouts(config, target)), _choices(_updates(config, target)))
    frugal, fast = (with_overrides(config, halves[0][end] | halves[1][end]) for end in (0, -1))
    if frugal == fast or not target.fits(frugal):
        return frugal
    best = [_best(half, frugal, fast, target) for half in halves]
    together = with_overrides(config, best[0] | best[1])
    if target.fits(together):
        return together
    runs = (with_overrides(config, rollout | update) for rollout, update in product(*halves))
    return next(run for run in sorted(runs, key=target.relative_step_time) if target.fits(run))


def _best(half: Sequence[Choice], frugal: RunConfig, fast: RunConfig, target: PlanTarget) -> Choice:
    """Returns the choice for one half; the other half is frugal in memory and fast in time."""
    uppers = [target.upper_bytes(with_overrides(frugal, choice)) for choice in half]
    times = [target.relative_step_time(with_overrides(fast, choice)) for choice in half]
    fitting = [i for i, upper in enumerate(uppers) if upper <= target.budget_bytes]
    limit = AS_FAST * min(times[i] for i in fitting)
    return half[min((i for i in fitting if times[i] <= limit), key=lambda i: (uppers[i], times[i]))]


def _choices(options: dict[str, Sequence[Any]]) -> list[Choice]:
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


def _rollouts(config: RunConfig, target: PlanTarget) -> dict[str, Sequence[Any]]:
    """Values for wave and weights where they are "auto", the most frugal first."""
    options: dict[str, Sequence[Any]] = {}
    if config.rollout.weights == "auto":
        options["rollout.weights"] = _weights(config, target)
    if config.memory.rollout_rows == "auto":
        options["memory.rollout_rows"] = divisors(config.rows_per_rollout, MOST_ROWS)
    return options


def _weights(config: RunConfig, target: PlanTarget) -> Sequence[str]:
    """In 16 bit nothing has to be expanded; other engines use the weights as they are."""
    can_merge = config.model.bits == 4 and engine_of(config, target.shape) == "lowmem"
    return ("quantized", "merged") if can_merge else ("quantized",)


def _updates(config: RunConfig, target: PlanTarget) -> dict[str, Sequence[Any]]:
    """Values for micro-batch and checkpointing where they are "auto", the most frugal first."""
    options: dict[str, Sequence[Any]] = {}
    if config.memory.micro_batch == "auto":
        options["memory.micro_batch"] = divisors(config.rows_per_step, MOST_ROWS)
    if config.memory.checkpointing == "auto":
        # On a CPU activations are in host RAM already.
        options["memory.checkpointing"] = ("unsloth", "plain", "none") if target.card else ("plain", "none")
    return options
