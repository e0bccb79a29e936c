"""How long a step and a run take: the counts of `step_cost` at a card's speed, between two efficiencies.

A roofline with a floor: a part takes as long as the slowest of its multiplications, its bytes and the host that
launches its kernels. The work is counted, the card's rates are its data sheet's, the share of them that is reached is
assumed. The upper end has every prompt and completion at its limit, the lower one at half of it. Dead groups cost no
update if something is known of the pass rate; if not, every group counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.speeds import TYPICAL, Speed, speed_of
from lowmem_rl.planning.step_cost import Scenario, StepCost, evaluation_work, probe_work, selection_work, step_work

_GRADE = "assumed"
"""Evidence of the weakest link, the efficiencies."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What is reached of a card's peak rates, and what the host needs to launch one layer."""

    bandwidth: float
    flops: float
    layer_s: float


# Bandwidth: llama.cpp at batch 1 on an A6000 reaches 51 % with 4-bit and 76 % with 16-bit weights
# (github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference issue 2). Host: 4.5 ms a token for the 24 layers of
# opt-1.3b (DeepSpeed#8271 on GitHub). The rest is assumed.
AT_BEST = Efficiency(bandwidth=0.75, flops=0.60, layer_s=0.0002)
_AT_WORST = Efficiency(bandwidth=0.50, flops=0.35, layer_s=0.001)
BUS_BYTES_PER_S = 6e9
"""Between card and host RAM, both ways: half of what PCIe 3.0 x16 moves from pinned memory, because what is sampled
comes to pageable memory first; an assumption."""
SHORT = 0.5
"""Mean length over the limit in the fastest step; an assumption."""


@dataclass(frozen=True, slots=True)
class SecondsRange:
    """A range of time."""

    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Returns plain JSON data; tenths of a second are all the model knows."""
        return {"low": round(self.low, 1), "high": round(self.high, 1)}


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one optimizer step, in all and by part, and of the whole run with its evaluations."""

    step: SecondsRange
    parts: dict[str, SecondsRange]
    run: SecondsRange
    selection: SecondsRange
    """Of the run: the rounds that score layers (`trainable.select`)."""
    grade: str = _GRADE


def step_time(config: RunConfig, shape: ModelShape, card: Card | None, updated_share: float = 1.0) -> StepTime | None:
    """Returns the times of a resolved run, or None for a card of unknown speed and for a CPU."""
    speed = speed_of(card)
    return None if speed is None else time_at(config, shape, speed, updated_share)


def probe_time(config: RunConfig, shape: ModelShape, card: Card | None, completions: int) -> SecondsRange | None:
    """Returns how long `lowmem-rl probe` samples, or None for a card of unknown speed and for a CPU."""
    short, long = (probe_work(config, shape, completions, Scenario(filled)) for filled in (SHORT, 1.0))
    speed = speed_of(card)
    return None if speed is None else _range(short, long, speed)


def relative_step_time(config: RunConfig, shape: ModelShape, card: Card | None) -> float:
    """Returns a number that orders resolved runs by the time of a step; without a known card a typical one's."""
    short, long = ([*step_work(config, shape, Scenario(filled))] for filled in (SHORT, 1.0))
    if card is None:  # a CPU has all of it in host memory
        short, long = ([work._replace(bus_bytes=0.0) for work in works] for works in (short, long))
    step = _range(short, long, speed_of(card) or TYPICAL)
    return (step.low + step.high) / 2


def time_at(config: RunConfig, shape: ModelShape, speed: Speed, updated_share: float = 1.0) -> StepTime:
    """Returns the times of a resolved run on a card of that speed; `updated_share` of the groups cost an update."""
    shortest, longest = (Scenario(filled, updated_share) for filled in (SHORT, 1.0))
    short, long = (list(step_work(config, shape, scenario)) for scenario in (shortest, longest))
    evaluations, selection = (
        _range(work(config, shape, shortest), work(config, shape, longest), speed)
        for work in (evaluation_work, selection_work)
    )
    parts = {
        name: _range([one for one in short if one.name == name], [one for one in long if one.name == name], speed)
        for name in dict.fromkeys(one.name for one in long)
    }
    step, steps = _range(short, long, speed), config.grpo.steps
    low, high = evaluations.low + selection.low, evaluations.high + selection.high
    return StepTime(step, parts, SecondsRange(steps * step.low + low, steps * step.high + high), selection)


def seconds(work: StepCost, speed: Speed, efficiency: Efficiency) -> float:
    """Returns how long a part takes: max(host, expanding + max(multiplying, moving)) + bus, as often as it is done."""
    bytes_per_s = speed.bytes_per_s * efficiency.bandwidth
    multiplying = work.flops / (speed.flops_per_s * efficiency.flops)
    on_card = work.expanded_bytes / bytes_per_s + max(multiplying, work.bytes / bytes_per_s)
    return work.times * (max(on_card, work.layer_passes * efficiency.layer_s) + work.bus_bytes / BUS_BYTES_PER_S)


def _range(short: Iterable[StepCost], long: Iterable[StepCost], speed: Speed) -> SecondsRange:
    low = sum(seconds(work, speed, AT_BEST) for work in short)
    return SecondsRange(low, sum(seconds(work, speed, _AT_WORST) for work in long))
