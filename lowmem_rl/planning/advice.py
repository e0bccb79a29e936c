"""What to change: settings that save memory, and fixes for weak groups, each with its cost.

The group is never lowered: memory is saved where it costs time, and only then where it costs learning.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.memory.trained_set import trained_set
from lowmem_rl.planning.frontier import keeping_batch_shape, with_group
from lowmem_rl.planning.frozen_bits import method_name
from lowmem_rl.planning.overrides import (
    Settings,
    as_text,
    divisors,
    not_already_set,
    planned,
    with_overrides,
    with_planned_values,
)
from lowmem_rl.planning.search import PlanTarget, choose
from lowmem_rl.signal.groups import MAX_GROUP_SIZE, MEANINGFUL_SHARE
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.signal.signal_report import SignalReport, signal_of
from lowmem_rl.units import GIB

_SMALL_SAVING = GIB // 20
"""Savings below 0.05 GiB are not worth a line."""
_LEAST_COST = 0.01
"""A setting that costs no time counts as costing one per cent of it."""
_WORTH_A_CHANGE = 0.95
"""Step time, against the present one, from which other memory settings are worth a line."""
_WORTH_A_DOUBLING = 0.05
"""What the informative share must gain for a group twice as large to be worth twice the rollouts."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A change, the bytes it saves (below 0: takes), and what it costs."""

    settings: Settings
    saves_bytes: int
    costs: str
    costs_learning: bool = False
    other_costs: str = ""
    """The costs without the time of a step."""

    @property
    def change(self) -> str:
        """The settings as they are written after `--set`: "a.b=1", or "a.b=1 --set a.c=2"."""
        return as_text(self.settings)

    def to_json(self) -> dict[str, Any]:
        return {"change": self.change, "saves_bytes": self.saves_bytes, "costs": self.costs}


@dataclass(frozen=True, slots=True)
class _MemoryOption:
    """A setting that may need less memory, and what it costs in addition to the time of a step."""

    settings: Settings
    costs: str = ""
    costs_learning: bool = False


def advise(written: RunConfig, config: RunConfig, target: PlanTarget, pass_rate: PassRate) -> tuple[Advice, ...]:
    """Returns what to change in a run as it was written, the best first; `config` is the same run resolved."""
    saving = _memory_savings(config, target)
    fixes = tuple(_signal_fixes(config, target, pass_rate))
    replanned = _replanned(config, target)
    found = (*fixes, *replanned, *saving) if target.fits(config) else (*replanned, *saving, *fixes)
    return tuple(_as_written(item, written, config, target) for item in found)


def remedies(advice: Iterable[Advice], spare_bytes: int) -> tuple[Advice, ...]:
    """Returns the advice with which a run fits that lacks memory: what costs no learning, then the fewest settings."""
    enough = [item for item in advice if spare_bytes < 0 <= spare_bytes + item.saves_bytes]
    return tuple(sorted(enough, key=lambda item: (item.costs_learning, len(item.settings))))


def _as_written(item: Advice, written: RunConfig, config: RunConfig, target: PlanTarget) -> Advice:
    """Returns the advice for the run as its user wrote it: a change lets "auto" choose again.

    If the run fits only then, that is what the change brings; else what would be chosen differently is pinned.
    """
    alone = not_already_set(written, item.settings)
    again = choose(with_overrides(written, alone), target)
    run = with_overrides(config, item.settings)
    if (planned(again), again.model.bits) == (planned(run), run.model.bits):
        return replace(item, settings=alone)
    if not target.fits(again) or target.fits(config):
        return replace(item, settings=not_already_set(written, with_planned_values(item.settings, config)))
    saved = _upper(target, config) - _upper(target, again)
    costs = _costs(_time_ratio(again, config, target), item.other_costs)
    return replace(item, settings=alone, saves_bytes=saved, costs=costs)


def _memory_savings(config: RunConfig, target: PlanTarget) -> list[Advice]:
    """Returns what saves memory, each key once, by saving per cost.

    What costs learning comes last, and is not offered if the run fits. If it does not fit, the cheapest change that
    makes it fit comes first: bytes beyond that are worth nothing.
    """
    upper, step, fits = _upper(target, config), target.relative_step_time(config), target.fits(config)
    priced = []
    for option in _memory_options(config, target):
        run = with_overrides(config, option.settings)
        needed, ratio = _upper(target, run), target.relative_step_time(run) / step
        saved = upper - needed
        if saved < _SMALL_SAVING or (fits and option.costs_learning) or any(broken_rules(run)):
            continue
        cost, is_enough = max(ratio - 1, _LEAST_COST), not fits and needed <= target.budget_bytes
        order = (cost, -needed) if is_enough else (-saved / cost, needed)
        costs = _costs(ratio, option.costs)
        item = Advice(option.settings, saved, costs, option.costs_learning, option.costs)
        priced.append(((option.costs_learning, not is_enough, *order), item))
    best: dict[tuple[str, ...], Advice] = {}
    for _, item in sorted(priced, key=lambda pair: pair[0]):
        best.setdefault(tuple(item.settings), item)
    return list(best.values())


def _signal_fixes(config: RunConfig, target: PlanTarget, pass_rate: PassRate) -> Iterator[Advice]:
    """Yields what makes groups teach more: the findings' fixes, and a group twice as large if it pays."""
    report, wanted = signal_of(config, pass_rate), dict[str, int]()
    for finding in report.findings:
        wanted |= {key: max(value, wanted.get(key, 0)) for key, value in finding.settings.items()}
    double = 2 * config.grpo.group_size
    if double <= MAX_GROUP_SIZE and report.informative_share < MEANINGFUL_SHARE:
        larger = signal_of(with_group(config, double), pass_rate)
        if larger.informative_share - report.informative_share >= _WORTH_A_DOUBLING:
            wanted.setdefault("grpo.group_size", double)
    for key in sorted(wanted, reverse=True):  # prompts first: they cost no memory
        yield _priced_fix({key: wanted[key]}, config, target, pass_rate)


def _priced_fix(settings: Settings, config: RunConfig, target: PlanTarget, pass_rate: PassRate) -> Advice:
    """Returns a fix with its cost while micro-batch and wave stay."""
    grpo = with_overrides(config, settings).grpo
    settings = {**settings, **keeping_batch_shape(config, grpo.group_size, grpo.prompts_per_step)}
    run = with_overrides(config, settings)
    saved = _upper(target, config) - _upper(target, run)
    time, gain = _time(_time_ratio(run, config, target)), _gain(signal_of(config, pass_rate), signal_of(run, pass_rate))
    return Advice(settings, saved, f"{_more(saved)} while micro-batch and wave stay: {time}, {gain}")


def _gain(before: SignalReport, after: SignalReport) -> str:
    if after.group_size != before.group_size:
        return f"informative share {before.informative_share:.2f} -> {after.informative_share:.2f}"
    dead = f"{100 * before.dead_step_probability:.0f} % -> {100 * after.dead_step_probability:.0f} %"
    groups = f"{before.informative_groups_per_step:.1f} -> {after.informative_groups_per_step:.1f}"
    return f"informative groups a step {groups}, dead steps {dead}"


def _replanned(config: RunConfig, target: PlanTarget) -> list[Advice]:
    """Returns the settings of the fastest plan, if the run does not fit or is slower."""
    free = {"memory.rollout_rows": "auto", "memory.checkpointing": "auto", "rollout.weights": "auto"}
    free["memory.kept_states"] = "auto"
    if _micro_batch_is_free(config):
        free["memory.micro_batch"] = "auto"
    run = choose(with_overrides(config, free), target)
    ratio, before = _time_ratio(run, config, target), planned(config)
    settings = {key: value for key, value in planned(run).items() if value != before[key]}
    if not settings or (ratio >= _WORTH_A_CHANGE and target.fits(config)):
        return []
    saved = _upper(target, config) - _upper(target, run)
    return [Advice(settings, saved, _time(ratio) if saved > 0 else f"{_more(saved)}: {_time(ratio)}")]


def _memory_options(config: RunConfig, target: PlanTarget) -> Iterator[_MemoryOption]:
    if _micro_batch_is_free(config):
        yield from _halved("memory.micro_batch", config.micro_batch, config.rows_per_step)
    yield from _halved("memory.rollout_rows", config.rollout_rows, config.rows_per_rollout)
    if config.rollout_weights == "merged":
        yield _MemoryOption({"rollout.weights": "quantized"})
        if target.shape.quantised == "no":  # the copy is what 16-bit weights are already
            settings = {"model.bits": 16, "rollout.weights": "quantized"}
            yield _MemoryOption(settings, _other_width(config, 16))
    yield from _halved("eval.batch", config.eval.batch, config.eval.batch, "evaluations take longer")
    modes = ("none", "plain", "unsloth") if target.card else ("none", "plain")
    if (mode := config.checkpointing) in modes[:-1]:
        yield _MemoryOption({"memory.checkpointing": modes[modes.index(mode) + 1]})
    yield from _fewer_states(config, target)
    if config.optimizer.name.startswith("adamw_torch") and target.card:
        yield _MemoryOption({"optimizer.name": "adamw_8bit"})
    yield from _options_that_cost_learning(config)
    if config.trainable.method == "full":
        yield from _fewer_whole_weights(config, target)


def _fewer_states(config: RunConfig, target: PlanTarget) -> Iterator[_MemoryOption]:
    if config.memory.kept_states == "card" and target.card:
        yield _MemoryOption({"memory.kept_states": "host"})
    elif config.keeps_states and not target.card:
        yield _MemoryOption({"memory.kept_states": "off"})


def _fewer_whole_weights(config: RunConfig, target: PlanTarget) -> Iterator[_MemoryOption]:
    """Yields an adapter, and the last layers alone: what learns whole takes its width, its gradient and its states."""
    default, trainable = TrainableConfig(), config.trainable
    of_whole = {name: getattr(default, name) for name in ("modules", "extra", "dtype")}
    undone = {f"trainable.{name}": value for name, value in of_whole.items() if value != getattr(trainable, name)}
    costs = "adapters learn instead of whole weights, best at about ten times the learning rate"
    yield _MemoryOption({"trainable.method": "lora", **undone}, costs, costs_learning=True)
    if (trainable.schedule, trainable.select) != ("fixed", "none"):
        return  # these choose among the layers themselves
    layers = trained_set(config, target.shape).layers
    while layers > 1:
        layers //= 2
        costs = f"layers that learn: {layers} of {target.shape.num_layers}"
        yield _MemoryOption({"trainable.layers": f"last:{layers}"}, costs, costs_learning=True)


def _options_that_cost_learning(config: RunConfig) -> Iterator[_MemoryOption]:
    if config.model.bits == 16:
        yield _MemoryOption({"model.bits": 4}, _other_width(config, 4), costs_learning=True)
    elif config.model.checkpoint == "dynamic":
        yield _MemoryOption({"model.checkpoint": "plain"}, "sensitive layers in 4 bit too", costs_learning=True)
    longest = config.grpo.max_completion_tokens
    for shorter in filter(None, (longest * 3 // 4, longest // 2)):
        settings = {"grpo.max_completion_tokens": shorter}
        yield _MemoryOption(settings, f"completions end at {shorter} tokens", costs_learning=True)
    if config.adapter.peft_type == "lora" and (rank := config.adapter.rank // 2):
        yield _MemoryOption({"adapter.rank": rank}, "half as many weights learn", costs_learning=True)


def _other_width(config: RunConfig, bits: int) -> str:
    other = 4 if bits == 16 else 16
    if config.trainable.method == "full":
        return f"whole weights over {bits} instead of {other} bit"
    return f"{method_name(config, bits)} instead of {method_name(config, other)}: frozen weights in {bits} bit"


def _micro_batch_is_free(config: RunConfig) -> bool:
    """True if the micro-batch changes no gradient; bnpo averages over each."""
    return config.grpo.loss != "bnpo"


def _halved(key: str, value: int, rows: int, costs: str = "") -> Iterator[_MemoryOption]:
    """Yields about a half, a quarter, an eighth ... of a number of rows."""
    while value > 1:
        value = divisors(rows, value // 2)[-1]
        yield _MemoryOption({key: value}, costs)


def _upper(target: PlanTarget, run: RunConfig) -> int:
    return target.planned(run).upper_bytes


def _more(saved: int) -> str:
    return f"{max(-saved, 0) / GIB:.1f}".removesuffix(".0") + " GiB more"


def _time_ratio(run: RunConfig, config: RunConfig, target: PlanTarget) -> float:
    return target.relative_step_time(run) / target.relative_step_time(config)


def _costs(ratio: float, others: str) -> str:
    return "; ".join(filter(None, [_time(ratio), others]))


def _time(ratio: float) -> str:
    return f"{ratio:.2g}x the step time" if ratio >= 1.05 or ratio <= 0.95 else "about the same step time"
