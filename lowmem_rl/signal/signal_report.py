"""The verdict on a group size: what a run's groups will teach, what is wrong with them, and the cheapest fix.

Cut-offs. Share below 0.5: half of the rollouts are thrown away, the level at which filtering and resampling
report large gains (Knapsack RL arXiv 2509.25849, GRESO 2506.02177, DAPO 2503.14476). Dead steps above 5 %: one
in twenty moves on stale momentum alone. Below two informative groups a step hangs on one prompt. Below four
completions a group only says which half was better.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, log
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from lowmem_rl.config.first_reward import NEARLY_NEVER_RIGHT, ways_to_a_first_reward
from lowmem_rl.config.run_config import RolloutConfig, RunConfig
from lowmem_rl.finding import Finding
from lowmem_rl.signal.groups import baseline_efficiency, dead_step_probability, smallest_group_size
from lowmem_rl.signal.pass_rate import PassRate, pessimistic

Verdict = Literal["ok", "note", "warning", "too-small"]
VERDICTS: tuple[Verdict, ...] = ("ok", "note", "warning", "too-small")
"""From best to worst."""

_SMALLEST_RANKING_GROUP = 4
_DEFAULT_GROUP_SIZE = 8
_HARD_DATA_GROUP_SIZE = 16
_RARELY_RIGHT, _NEARLY_ALWAYS_RIGHT = 0.1, 0.9
RECOMMENDATION = (
    f"{_HARD_DATA_GROUP_SIZE} if the pass rate is at most {_RARELY_RIGHT} or at least {_NEARLY_ALWAYS_RIGHT}, "
    f"else {_DEFAULT_GROUP_SIZE}"
)
_WASTEFUL_SHARE, _HOPELESS_SHARE = 0.5, 0.25
_RARE_DEAD_STEPS, _COMMON_DEAD_STEPS = 0.05, 0.5
_FEWEST_INFORMATIVE_GROUPS = 2
_PAIRWISE_PROMPTS = 8
_LITTLE_FREEDOM, _NO_FREEDOM = 0.3, 0.01
"""Of a temperature, a top_p or 1 - min_p: below the second vLLM warns of a temperature, too, and lifts it."""
_FREE = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0}
"""Values that leave sampling as free as the model's own distribution."""
MOST_PROMPTS = 64
"""More prompts a step than this do not fix groups that are nearly all dead."""

_PAIRS = f"pairs need grpo.pairwise=true, grpo.scale_rewards=none and {_PAIRWISE_PROMPTS} prompts a step"
_SMALL_GROUPS = '; or an odd group with grpo.baseline="median" (arXiv 2601.22582)'
_OTHER_DATA = "train on prompts that are solved in 0.2 to 0.8 of the samples, or from another model"

ANSWER_REWARDS = frozenset(
    ("any_answer", "boxed_answer", "countdown", "matrix_frobenius", "matrix_l1", "matrix_rows", "program_synthesis")
)
"""Rewards for right answers; the others pay for something else."""


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
class SignalReport:
    """What the groups of a run will teach."""

    group_size: int
    prompts_per_step: int
    pass_rate: PassRate
    informative_share: float
    """Expected share of groups whose rewards differ."""
    pessimistic_share: float | None
    """The same if most prompts are too easy or too hard; None if the pass rate is known."""
    smallest_group_size: int | None
    """The smallest group with an informative share of 0.8; None if no group up to 256 has it."""
    reward: str = ""
    """The reward that the pass rate belongs to."""
    caveats: tuple[str, ...] = ()
    findings: tuple[SignalFinding, ...] = ()
    """The worst first."""

    @property
    def informative_groups_per_step(self) -> float:
        return self.prompts_per_step * self.informative_share

    @property
    def dead_step_probability(self) -> float:
        return dead_step_probability(self.informative_share, self.prompts_per_step)

    @property
    def updated_share(self) -> float:
        """Share of groups that cost an update: dead ones are spared, but an unknown pass rate promises none."""
        return 1.0 if self.pass_rate.kind == "unknown" else self.informative_share

    @property
    def verdict(self) -> Verdict:
        return self.findings[0].level if self.findings else "ok"

    @property
    def is_nearly_never_right(self) -> bool:
        """True if a pass rate is known at which groups of any size hold hardly a right answer."""
        return self.pass_rate.kind != "unknown" and self.pass_rate.mean <= NEARLY_NEVER_RIGHT

    @property
    def recommended_group_size(self) -> int:
        """The `RECOMMENDATION` for this pass rate."""
        is_usual = _RARELY_RIGHT < self.pass_rate.mean < _NEARLY_ALWAYS_RIGHT
        return _DEFAULT_GROUP_SIZE if is_usual else _HARD_DATA_GROUP_SIZE

    def to_json(self) -> dict[str, Any]:
        names = ("group_size", "prompts_per_step", "informative_share", "informative_groups_per_step")
        return {name: getattr(self, name) for name in (*names, "dead_step_probability", "smallest_group_size")}


def signal_of(config: RunConfig, pass_rate: PassRate) -> SignalReport:
    """Returns what a run's groups will teach.

    The pass rate is that of the heaviest reward for right answers, or of the heaviest reward if there is none.
    """
    grpo, paid = config.grpo, {name: weight for name, weight in config.rewards.items() if weight}
    answer = max(paid, key=lambda name: (name in ANSWER_REWARDS, paid[name]))
    return signal_report(
        grpo.group_size,
        grpo.prompts_per_step,
        pass_rate,
        grpo.scale_rewards,
        pairwise=grpo.pairwise,
        baseline=grpo.baseline,
        reward=answer,
        other_rewards=[name for name in paid if name != answer and name not in ANSWER_REWARDS],
        rollout=config.rollout,
    )


def signal_report(
    group_size: int,
    prompts_per_step: int,
    pass_rate: PassRate,
    scale_rewards: Literal["group", "batch", "none"] = "group",
    *,
    pairwise: bool = False,
    baseline: Literal["mean", "median"] = "mean",
    reward: str = "",
    other_rewards: Sequence[str] = (),
    rollout: RolloutConfig | None = None,
) -> SignalReport:
    """Returns what groups of this size will teach; the pass rate is that of right answers alone.

    `reward` names the reward for them, `other_rewards` those for anything else, such as a format; `rollout` says how
    freely completions are sampled. At a pass rate near zero no fix is a larger group alone.
    """
    caveat = (
        f"{', '.join(other_rewards)} is paid too: it can keep groups informative that say nothing about being right"
    )
    report = SignalReport(
        group_size=group_size,
        prompts_per_step=prompts_per_step,
        pass_rate=pass_rate,
        informative_share=pass_rate.informative_share(group_size),
        pessimistic_share=pessimistic().informative_share(group_size) if pass_rate.kind == "unknown" else None,
        smallest_group_size=smallest_group_size(pass_rate.informative_share),
        reward=reward,
        caveats=(caveat,) if other_rewards else (),
    )
    compares = pairwise and scale_rewards != "group" and prompts_per_step >= _PAIRWISE_PROMPTS
    found = (
        _little_variety(rollout or RolloutConfig()),
        _small_group(report, compares),
        _rare_difference(report),
        _thin_steps(report),
        _costly_baseline(report, baseline),
    )
    return replace(report, findings=_worst_first(report, filter(None, found), (reward, *other_rewards)))


def _worst_first(
    report: SignalReport, found: Iterable[SignalFinding], rewards: Sequence[str]
) -> tuple[SignalFinding, ...]:
    """Returns them in order; if hardly a completion is right, their fix is a way to a first right answer."""
    if report.is_nearly_never_right:
        ways = ways_to_a_first_reward(rewards)
        found = [_with_first_reward(ways, finding) for finding in found]
    return tuple(sorted(found, key=lambda finding: -VERDICTS.index(finding.level)))


def _with_first_reward(ways: str, finding: SignalFinding) -> SignalFinding:
    """Returns the finding with the ways to a first right answer as its fix; greedy sampling has its own."""
    if finding.fix.startswith("set rollout."):
        return finding
    return replace(finding, fix=ways, settings=MappingProxyType({}))


def _little_variety(rollout: RolloutConfig) -> SignalFinding | None:
    """Equal completions have equal rewards: a group that is sampled greedily teaches nothing, whatever its size."""
    # A top_k of 2 leaves a choice at every token.
    freedom = {"temperature": rollout.temperature, "top_p": rollout.top_p, "min_p": 1 - (rollout.min_p or 0.0)}
    narrow = {name: value for name, value in freedom.items() if value < _LITTLE_FREEDOM}
    if rollout.top_k == 1:
        narrow["top_k"] = 0.0
    if not narrow:
        return None
    given = " and ".join(f"rollout.{name}={getattr(rollout, name):g}" for name in narrow)
    free = " and ".join(f"rollout.{name}={_FREE[name]}" for name in narrow)
    if min(narrow.values()) <= _NO_FREEDOM:
        return SignalFinding("too-small", f"with {given} the completions of a group are equal", f"set {free}", {})
    return SignalFinding("warning", f"with {given} the completions of a group are nearly equal", f"set {free}", {})


def _small_group(report: SignalReport, compares: bool) -> SignalFinding | None:
    """Groups of 2 and 3 hold no magnitude: scaled by the group, a mixed pair always gives +0.71 and -0.71.

    As comparisons they pass if they are asked for, not scaled by the group, and many in a step (`compares`).
    """
    size = report.group_size
    if size >= _SMALLEST_RANKING_GROUP:
        return None
    if compares and report.informative_groups_per_step >= _FEWEST_INFORMATIVE_GROUPS:
        what = f"groups of {size} only compare; accepted as asked (grpo.pairwise, arXiv 2510.00977)"
        return SignalFinding("warning", what, *_larger_group(_DEFAULT_GROUP_SIZE))
    what = f"a group of {size} can only say which completions were better, not by how much"
    return SignalFinding("too-small", what, *_larger_group(_DEFAULT_GROUP_SIZE, f"; {_PAIRS}"))


def _rare_difference(report: SignalReport) -> SignalFinding | None:
    share = report.informative_share
    if share >= _WASTEFUL_SHARE:
        return None
    what = f"only {_percent(share)} of groups are informative; the other rollouts teach nothing"
    enough = smallest_group_size(report.pass_rate.informative_share, _WASTEFUL_SHARE)
    # A fix must not itself be too small.
    larger = None if enough is None else max(enough, _SMALLEST_RANKING_GROUP)
    fix = Fix(_OTHER_DATA) if larger is None else _larger_group(larger, f"; or {_OTHER_DATA}")
    return SignalFinding("too-small" if share < _HOPELESS_SHARE else "warning", what, *fix)


def _thin_steps(report: SignalReport) -> SignalFinding | None:
    """More prompts a step cost time alone: neither a micro-batch nor a wave grows with them."""
    dead, informative = report.dead_step_probability, report.informative_groups_per_step
    if dead <= _RARE_DEAD_STEPS and informative >= _FEWEST_INFORMATIVE_GROUPS:
        return None
    what = f"{informative:.1f} informative groups a step, none at all in {_percent(dead)} of steps"
    fix = Fix(_OTHER_DATA)
    if (enough := _prompts_needed(report.informative_share)) <= MOST_PROMPTS:
        prompts = max(int(enough), report.prompts_per_step + 1)
        fix = Fix(f"grpo.prompts_per_step={prompts}", {"grpo.prompts_per_step": prompts})
    return SignalFinding("too-small" if dead > _COMMON_DEAD_STEPS else "warning", what, *fix)


def _costly_baseline(report: SignalReport, baseline: str) -> SignalFinding | None:
    if report.group_size not in (4, 5):
        return None
    share = 1 - baseline_efficiency(report.group_size)
    what = f"{_percent(share)} of the rollouts pay for the baseline; {_DEFAULT_GROUP_SIZE} is the usual group"
    return SignalFinding("note", what, *_larger_group(_DEFAULT_GROUP_SIZE, _SMALL_GROUPS if baseline == "mean" else ""))


def _prompts_needed(share: float) -> float:
    """Returns the fewest prompts with two informative groups a step and 5 % dead steps."""
    if share <= 0:
        return inf
    few_dead = log(_RARE_DEAD_STEPS) / log(1 - share) if share < 1 else 1.0
    return ceil(max(_FEWEST_INFORMATIVE_GROUPS / share, few_dead))


def _larger_group(group_size: int, more: str = "") -> Fix:
    return Fix(f"grpo.group_size={group_size}{more}", {"grpo.group_size": group_size})


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
