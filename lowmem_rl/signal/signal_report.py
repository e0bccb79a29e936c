"""The verdict on a group size: what a run's groups will teach, what is wrong with them, and the cheapest cure.

Cut-offs. Share below 0.5: half of the rollouts are thrown away, the level at which filtering and resampling
report large gains (Knapsack RL arXiv 2509.25849, GRESO 2506.02177, DAPO 2503.14476). Dead steps above 5 %: one
in twenty moves on stale momentum alone. Below two informative groups a step hangs on one prompt. Below four
completions a group only says which half was better.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from lowmem_rl.finding import Finding
from lowmem_rl.signal.groups import (
    baseline_efficiency,
    dead_step_probability,
    smallest_group_size,
)
from lowmem_rl.signal.pass_rate import PassRate, pessimistic

Verdict = Literal["ok", "note", "warning", "too-small"]
VERDICTS: tuple[Verdict, ...] = ("ok", "note", "warning", "too-small")
"""From best to worst."""

SMALLEST_RANKING_GROUP = 4
DEFAULT_GROUP_SIZE = 8
HARD_DATA_GROUP_SIZE = 16
RARELY_RIGHT, NEARLY_ALWAYS_RIGHT = 0.1, 0.9
RECOMMENDATION = (
    f"{HARD_DATA_GROUP_SIZE} where the pass rate is at most {RARELY_RIGHT} or at least {NEARLY_ALWAYS_RIGHT}, "
    f"else {DEFAULT_GROUP_SIZE}"
)
WASTEFUL_SHARE, HOPELESS_SHARE = 0.5, 0.25
RARE_DEAD_STEPS, COMMON_DEAD_STEPS = 0.05, 0.5
FEWEST_INFORMATIVE_GROUPS = 2
PAIRWISE_PROMPTS = 8
MOST_PROMPTS = 64
"""More prompts a step than this are no cure for groups that are nearly all dead."""

PAIRS = f"pairs need grpo.pairwise=true, grpo.scale_rewards=none and {PAIRWISE_PROMPTS} prompts a step"
OTHER_DATA = "train on prompts that are solved in 0.2 to 0.8 of the samples, or from another model"


class Fix(NamedTuple):
    """What to do, in words, and as settings if settings do it."""

    text: str
    settings: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignalFinding(Finding):
    """A problem with the groups, and its cheapest fix."""

    level: Verdict
    settings: Mapping[str, Any]
    """The fix by dotted key; empty if it is no setting."""


@dataclass(frozen=True, slots=True)
class StepGroups:
    """The groups of a step, and how likely their prompts are solved."""

    group_size: int
    prompts_per_step: int
    pass_rate: PassRate
    scale_rewards: Literal["group", "batch", "none"] = "group"
    pairwise: bool = False

    @property
    def informative_share(self) -> float:
        return self.pass_rate.informative_share(self.group_size)

    @property
    def informative_groups_per_step(self) -> float:
        return self.prompts_per_step * self.informative_share

    @property
    def dead_step_probability(self) -> float:
        return dead_step_probability(self.informative_share, self.prompts_per_step)

    @property
    def compare_well(self) -> bool:
        """Groups of 2 or 3 as comparisons: asked for, not scaled by the group, and many in a step."""
        return (
            self.pairwise
            and self.scale_rewards != "group"
            and self.prompts_per_step >= PAIRWISE_PROMPTS
            and self.informative_groups_per_step >= FEWEST_INFORMATIVE_GROUPS
        )


@dataclass(frozen=True, slots=True)
class SignalReport:
    """What the groups of a run will teach."""

    group_size: int
    prompts_per_step: int
    pass_rate: PassRate
    informative_share: float
    """Expected share of groups whose rewards differ."""
    pessimistic_share: float | None
    """The same where most prompts are too easy or too hard; None where the pass rate is known."""
    informative_groups_per_step: float
    dead_step_probability: float
    smallest_group_size: int | None
    """The smallest group with an informative share of 0.8; None where none up to 256 has it."""
    baseline_efficiency: float
    findings: tuple[SignalFinding, ...]
    """The worst first."""
    judged_by: str = ""
    """The reward whose pass rate it is."""
    caveats: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return self.findings[0].level if self.findings else "ok"

    @property
    def recommended_group_size(self) -> int:
        """What `RECOMMENDATION` says of this pass rate."""
        is_usual = RARELY_RIGHT < self.pass_rate.mean < NEARLY_ALWAYS_RIGHT
        return DEFAULT_GROUP_SIZE if is_usual else HARD_DATA_GROUP_SIZE

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers as plain JSON data."""
        names = ("group_size", "prompts_per_step", "informative_share", "informative_groups_per_step")
        return {name: getattr(self, name) for name in (*names, "dead_step_probability", "smallest_group_size")}

    def __str__(self) -> str:
        band = "" if self.pessimistic_share is None else f" ({self.pessimistic_share:.2f} for uneven data)"
        return (
            f"{self.informative_share:.2f}{band} of groups of {self.group_size} are informative: "
            f"{self.informative_groups_per_step:.1f} of {self.prompts_per_step} a step, "
            f"none in {_percent(self.dead_step_probability)} of steps"
        )


def signal_report(
    group_size: int,
    prompts_per_step: int,
    pass_rate: PassRate,
    scale_rewards: Literal["group", "batch", "none"] = "group",
    *,
    pairwise: bool = False,
    judged_by: str = "",
    paid_besides: Sequence[str] = (),
) -> SignalReport:
    """Returns what groups of this size will teach; the pass rate is that of right answers alone.

    `judged_by` names the reward for them, `paid_besides` those for anything else, such as a format.
    """
    groups = StepGroups(group_size, prompts_per_step, pass_rate, scale_rewards, pairwise)
    findings = sorted(_findings(groups), key=lambda finding: -VERDICTS.index(finding.level))
    is_unknown = pass_rate.kind == "unknown"
    return SignalReport(
        group_size=group_size,
        prompts_per_step=prompts_per_step,
        pass_rate=pass_rate,
        informative_share=groups.informative_share,
        pessimistic_share=pessimistic().informative_share(group_size) if is_unknown else None,
        informative_groups_per_step=groups.informative_groups_per_step,
        dead_step_probability=groups.dead_step_probability,
        smallest_group_size=smallest_group_size(pass_rate.informative_share),
        baseline_efficiency=baseline_efficiency(group_size),
        findings=tuple(findings),
        judged_by=judged_by,
        caveats=tuple(_caveats(paid_besides)),
    )


def _findings(groups: StepGroups) -> Iterator[SignalFinding]:
    for look in (_small_group, _rare_difference, _thin_steps, _costly_baseline):
        if (finding := look(groups)) is not None:
            yield finding


def _small_group(groups: StepGroups) -> SignalFinding | None:
    """Groups of 2 and 3 hold no magnitude: scaled by the group, a mixed pair always gives +0.71 and -0.71."""
    if groups.group_size >= SMALLEST_RANKING_GROUP:
        return None
    if groups.compare_well:
        what = f"groups of {groups.group_size} only compare; accepted as asked (grpo.pairwise, arXiv 2510.00977)"
        return SignalFinding("warning", what, *_larger_group(DEFAULT_GROUP_SIZE))
    what = f"a group of {groups.group_size} can only say which completions were better, not by how much"
    return SignalFinding("too-small", what, *_larger_group(DEFAULT_GROUP_SIZE, f"; {PAIRS}"))


def _rare_difference(groups: StepGroups) -> SignalFinding | None:
    share = groups.informative_share
    if share >= WASTEFUL_SHARE:
        return None
    what = f"only {_percent(share)} of groups are informative; the other rollouts teach nothing"
    enough = smallest_group_size(groups.pass_rate.informative_share, WASTEFUL_SHARE)
    # A cure must not itself be too small.
    larger = None if enough is None else max(enough, SMALLEST_RANKING_GROUP)
    cure = Fix(OTHER_DATA) if larger is None else _larger_group(larger, f"; or {OTHER_DATA}")
    return SignalFinding("too-small" if share < HOPELESS_SHARE else "warning", what, *cure)


def _thin_steps(groups: StepGroups) -> SignalFinding | None:
    dead, informative = groups.dead_step_probability, groups.informative_groups_per_step
    if dead <= RARE_DEAD_STEPS and informative >= FEWEST_INFORMATIVE_GROUPS:
        return None
    what = f"{informative:.1f} informative groups a step, none at all in {_percent(dead)} of steps"
    return SignalFinding("too-small" if dead > COMMON_DEAD_STEPS else "warning", what, *_more_prompts(groups))


def _costly_baseline(groups: StepGroups) -> SignalFinding | None:
    if groups.group_size not in (4, 5):
        return None
    share = 1 - baseline_efficiency(groups.group_size)
    what = f"{_percent(share)} of the rollouts pay for the baseline; {DEFAULT_GROUP_SIZE} is the usual group"
    return SignalFinding("note", what, *_larger_group(DEFAULT_GROUP_SIZE))


def _more_prompts(groups: StepGroups) -> Fix:
    """More prompts a step cost time alone: neither a micro-batch nor a wave grows with them."""
    if (enough := _prompts_needed(groups.informative_share)) is None:
        return Fix(OTHER_DATA)
    prompts = max(enough, groups.prompts_per_step + 1)
    return Fix(f"grpo.prompts_per_step={prompts}", {"grpo.prompts_per_step": prompts})


def _prompts_needed(share: float) -> int | None:
    """Returns the fewest prompts with two informative groups a step and 5 % dead steps; None above 64."""
    if share <= 0:
        return None
    enough_groups = FEWEST_INFORMATIVE_GROUPS / share
    few_dead = log(RARE_DEAD_STEPS) / log(1 - share) if share < 1 else 1.0
    prompts = ceil(max(enough_groups, few_dead))
    return prompts if prompts <= MOST_PROMPTS else None


def _larger_group(group_size: int, more: str = "") -> Fix:
    return Fix(f"grpo.group_size={group_size}{more}", {"grpo.group_size": group_size})


def _caveats(paid_besides: Sequence[str]) -> Iterator[str]:
    if paid_besides:
        names = ", ".join(paid_besides)
        yield f"{names} is paid too: it can keep groups informative that say nothing about being right"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
