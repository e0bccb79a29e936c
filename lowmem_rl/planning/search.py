"""The values that "auto" takes: micro-batch, checkpointing, rollout wave and rollout weights that make a run fastest.

A choice fits if its upper estimate does. Wave and weights decide the rollout, micro-batch and checkpointing the update,
and the peak is the worse of both: each half is searched with the other at its most frugal, then both winners are put
together. An expanded copy of the weights competes with a larger wave by the time of a step; it never takes what a run
needs to fit.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from lowmem_rl.config.rules import BY_GRADIENT, needs_16_bits
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.kept_copies import kept_share
from lowmem_rl.memory.probe_rounds import probe_workload, worse_of
from lowmem_rl.memory.workload import Workload, can_keep_states, engine_of, workload_of
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.overrides import divisors, planner_origins, with_overrides
from lowmem_rl.planning.step_time import relative_step_time

if TYPE_CHECKING:
    from lowmem_rl.memory.calibration import Calibration

AS_FAST = 1.02
"""Of choices within two per cent of the fastest, the one that needs least is taken: estimates can be wrong."""
MOST_ROWS = 1024
"""Rows beyond which neither sampling nor learning gets faster on any card."""

_WAVE, _MICRO_BATCH = "memory.rollout_rows", "memory.micro_batch"
_STATES, _PLACES = "memory.kept_states", ("off", "host", "card")
Choice = dict[str, Any]
"""Values by dotted key."""

# Pure, and half of what advice asks for has been asked before: up to 90 plans a profile.
_cached_estimate = lru_cache(maxsize=256)(estimate)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A run, equal to every other that takes the same time: the sections that `step_cost` reads."""

    sections: tuple[object, ...]
    config: RunConfig = field(compare=False)

    @classmethod
    def of(cls, config: RunConfig) -> "_Timed":
        grpo, memory, rollout = config.grpo, config.memory, config.rollout
        adapter = config.adapter.model_dump_json()  # its tables of ranks have no hash
        return cls((grpo, memory, rollout, config.model, adapter, config.trainable, config.seed), config)


@lru_cache(maxsize=256)
def _cached_time(run: _Timed, shape: ModelShape, card: Card | None) -> float:
    return relative_step_time(run.config, shape, card)


@dataclass(frozen=True, slots=True)
class PlanTarget:
    """What a run is planned for: a model, a card (None is a CPU) and the bytes it may use."""

    shape: ModelShape
    card: Card | None
    budget_bytes: int
    calibration: "Calibration | None" = None
    """What was measured on this kind of card before."""

    def estimate(self, config: RunConfig, *, keeps_copies: bool = False) -> MemoryEstimate:
        """Returns what a resolved run needs here."""
        workload = workload_of(config, self.shape)
        if keeps_copies:
            workload = replace(workload, kept_share=kept_share(config, self.shape, self.card))
        found = self.needs(workload)
        if config.trainable.select not in BY_GRADIENT:
            return found
        return worse_of(found, self.needs(probe_workload(config, self.shape)))

    def needs(self, workload: Workload) -> MemoryEstimate:
        """Returns what a workload needs here, corrected by what was measured here."""
        found = _cached_estimate(workload, self.shape, self.card)
        return self.calibration.apply(found, self.card) if self.calibration else found

    def planned(self, config: RunConfig) -> MemoryEstimate:
        """Returns what a resolved run will take: copies of layers are kept between rollouts if that fits."""
        if config.rollout_weights == "merged" and engine_of(config, self.shape) == "lowmem":
            found = self.estimate(config, keeps_copies=True)
            if found.verdict(self.budget_bytes) == "fits":
                return found
        return self.estimate(config)

    def upper_bytes(self, config: RunConfig) -> int:
        return self.estimate(config).upper_bytes

    def fits(self, config: RunConfig) -> bool:
        return self.estimate(config).verdict(self.budget_bytes) == "fits"

    def relative_step_time(self, config: RunConfig) -> float:
        """Returns a number that orders resolved runs by the time of a step."""
        return _cached_time(_Timed.of(config), self.shape, self.card)


def resolve_auto(
    config: RunConfig, shape: ModelShape, budget_bytes: int, card: Card | None, calibration: "Calibration | None" = None
) -> RunConfig:
    """Returns the run with every "auto" chosen: the fastest that fits, else the one that needs least."""
    return choose(config, PlanTarget(shape, card, budget_bytes, calibration))


def choose(config: RunConfig, target: PlanTarget) -> RunConfig:
    """Returns the run with every "auto" chosen for the target; the same input gives the same choice."""
    if config.model.bits == "auto":
        return _with_bits(config, target)
    found = _fastest(config, target)
    whole = with_overrides(found, {_STATES: "off"})
    if target.card is None or found == whole or _STATES not in planner_origins(config) or not target.fits(whole):
        return found
    # In the search the other half was the fastest of all, next to which a saving looks larger.
    is_slower = target.relative_step_time(whole) > AS_FAST * target.relative_step_time(found)
    return found if is_slower else whole


def _fastest(config: RunConfig, target: PlanTarget) -> RunConfig:
    halves = _rollout_and_update(config, target)
    frugal, fast = (with_overrides(config, halves[0][end] | halves[1][end]) for end in (0, -1))
    if frugal == fast or not target.fits(frugal):
        return frugal
    best = [_best(half, frugal, fast, target) for half in halves]
    together = with_overrides(config, best[0] | best[1])
    if target.fits(together):
        return together
    runs = (with_overrides(config, rollout | update) for rollout, update in product(*halves))
    return next(run for run in sorted(runs, key=target.relative_step_time) if target.fits(run))


def possible_bits(config: RunConfig, shape: ModelShape) -> tuple[Literal[4, 16], ...]:
    """Returns the widths that frozen weights can have: 4-bit files stay so; whole layers that rest again need 16."""
    if shape.quantised != "no":
        return (4,)
    return (16,) if needs_16_bits(config.trainable) else (16, 4)


def _with_bits(config: RunConfig, target: PlanTarget) -> RunConfig:
    """Returns the fastest run that fits, of two as fast the one that takes less: QLoRA's copy of its weights to sample
    from can take more than 16-bit weights, which need none. If none fits, the one that needs least."""
    runs = [
        choose(with_overrides(config, {"model.bits": bits}), target) for bits in possible_bits(config, target.shape)
    ]
    fitting = [run for run in runs if target.fits(run)]
    if not fitting:
        return min(runs, key=target.upper_bytes)
    times = [target.relative_step_time(run) for run in fitting]
    near = [run for run, time in zip(fitting, times, strict=True) if time <= AS_FAST * min(times)]
    return min(near, key=target.upper_bytes)


def _rollout_and_update(config: RunConfig, target: PlanTarget) -> list[list[Choice]]:
    """Returns the choices for what is "auto" in the rollout and in the update, the most frugal first."""
    # In 16 bit nothing has to be expanded but DoRA's norms; other engines use the weights as they are.
    gains = config.model.bits == 4 or config.adapter.use_dora
    can_merge = gains and engine_of(config, target.shape) == "lowmem"
    kept = _PLACES if target.card else _PLACES[:2]
    rollout: dict[str, Sequence[Any]] = {
        "rollout.weights": ("quantized", "merged") if can_merge else ("quantized",),
        _WAVE: divisors(config.rows_per_rollout, MOST_ROWS),
    }
    update: dict[str, Sequence[Any]] = {
        _MICRO_BATCH: divisors(config.rows_per_step, MOST_ROWS),
        # On a CPU activations are in host RAM already.
        "memory.checkpointing": ("unsloth", "plain", "none") if target.card else ("plain", "none"),
        _STATES: kept if can_keep_states(config, target.shape) else ("off",),
    }
    auto = planner_origins(config)
    halves = [{key: values for key, values in half.items() if key in auto} for half in (rollout, update)]
    return [[dict(zip(half, values, strict=True)) for values in product(*half.values())] for half in halves]


def _best(half: Sequence[Choice], frugal: RunConfig, fast: RunConfig, target: PlanTarget) -> Choice:
    """Returns the choice for one half; the other half is frugal in memory and fast in time.

    More rows never need less, so of choices that differ in rows alone the largest that fits is looked for by halves.
    Smaller waves never get faster, so the first that is too slow ends them.
    """

    def upper(choice: Choice) -> int:
        return target.upper_bytes(with_overrides(frugal, choice))

    found, fastest = list[tuple[float, Choice]](), float("inf")
    for choices in _by_rows(half):
        fitting, tried = bisect_right(choices, target.budget_bytes, key=upper), list[tuple[float, Choice]]()
        for choice in reversed(choices[:fitting]):
            tried.append((target.relative_step_time(with_overrides(fast, choice)), choice))
            fastest = min(fastest, tried[-1][0])
            if tried[-1][0] > AS_FAST * fastest and _WAVE in choice:
                break
        found += reversed(tried)  # of equal ones the fewest rows are taken

    def place(choice: Choice) -> int:
        """On a card host RAM is not in the upper value, nor is what states take if another phase is the peak."""
        return _PLACES.index(choice.get(_STATES, "off")) if target.card else 0

    near = [one for one in found if one[0] <= AS_FAST * fastest]
    return min(near, key=lambda one: (upper(one[1]), place(one[1]), one[0]))[1]


def _by_rows(half: Sequence[Choice]) -> list[list[Choice]]:
    """Returns the choices in groups that differ in rows alone, each with the fewest rows first."""
    groups: dict[tuple[Any, ...], list[Choice]] = {}
    for choice in half:
        others = tuple(value for key, value in choice.items() if key not in (_WAVE, _MICRO_BATCH))
        groups.setdefault(others, []).append(choice)
    return list(groups.values())
