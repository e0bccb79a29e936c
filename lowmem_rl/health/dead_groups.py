"""Dead groups, whose rewards are all equal: more than the pass rate explains, or so many that little signal is left.

At a mean pass rate p, more groups are dead the more the rates of the prompts differ. The expectation here is for very
uneven prompts, Beta(p/2, (1-p)/2): the pass rate does not explain more dead groups than these.
"""

from math import exp
from statistics import fmean

from lowmem_rl.config.first_reward import NEARLY_NEVER_RIGHT, ways_to_a_first_reward
from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory
from lowmem_rl.health.significance import SOLVED, SURE, WINDOW, confidence
from lowmem_rl.stats import errors_above, log_beta

_NAME = "dead_groups"
_LONG_WINDOW = 2 * WINDOW
CONCENTRATION = 0.5
"""a + b of the Beta distribution; Jeffreys' prior, the pessimistic one of the signal report, has 1."""
_WASTEFUL, _HOPELESS = 0.5, 0.25
"""Informative shares below which rollouts are mostly wasted, and below which a group size counts as too small."""
_RELIABILITY = 0.85


def detect(history: RunHistory) -> HealthFinding | None:
    shares = history.last("informative_share", _LONG_WINDOW)
    share, groups = fmean(shares), len(shares) * history.prompts_per_round
    pass_rate = fmean(history.last("accuracy", _LONG_WINDOW))
    if pass_rate >= SOLVED:
        return None
    group_size = history.config.grpo.group_size
    expected = uneven_share(pass_rate, group_size)
    beyond = -errors_above(share, min(expected, _WASTEFUL), groups) if expected > 0 else 0.0
    hopeless = -errors_above(share, _HOPELESS, groups)
    if max(beyond, hopeless) < SURE:
        return None
    if beyond >= SURE:
        why, fix = f"; at a pass rate of {pass_rate:.2f} even very uneven prompts give {expected:.0%}.", _fix(history)
    else:
        why = f", as few as a pass rate of {pass_rate:.2f} allows: the other rollouts teach nothing."
        fix = f"Set grpo.group_size to {2 * group_size}, or choose prompts by lowmem-rl probe (curriculum.how=window)."
        if pass_rate <= NEARLY_NEVER_RIGHT:
            ways = ways_to_a_first_reward(history.config.rewards)
            fix = f"Take what gives a first right answer, {ways}."
    return HealthFinding(
        "warning",
        f"Only {share:.0%} of {groups} groups have rewards that differ{why}",
        fix,
        _NAME,
        history.steps_of_last(_LONG_WINDOW),
        confidence(max(beyond, hopeless), _RELIABILITY),
    )


def uneven_share(pass_rate: float, group_size: int) -> float:
    """Returns the informative share of very uneven prompts: 1 - E[p^G + (1-p)^G] under a Beta distribution."""
    if not 0 < pass_rate < 1:
        return 0.0
    a, b = CONCENTRATION * pass_rate, CONCENTRATION * (1 - pass_rate)
    dead = exp(log_beta(a + group_size, b) - log_beta(a, b)) + exp(log_beta(a, b + group_size) - log_beta(a, b))
    return max(0.0, 1 - dead)


def _fix(history: RunHistory) -> str:
    groups = history.recent_groups(1)
    equal = sum(len({sample.completion for sample in group}) == 1 for group in groups)
    if groups and equal > len(groups) / 2:
        temperature = history.config.rollout.temperature
        return f"Completions of a prompt are all the same: raise rollout.temperature (now {temperature:g})."
    return "Check that the reward separates right from wrong: lowmem-rl rewards check"


DETECTOR = Detector(_NAME, Requirements(WINDOW, ("informative_share", "accuracy")), detect)
