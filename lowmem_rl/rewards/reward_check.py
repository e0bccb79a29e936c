"""Checks the rewards of a run on examples with known perfect completions, before a model is loaded.

Pure: rewards, cases and the chat template's opening in, findings out. A finding holds for the rewards on this task
under this template: a reward can pass here and fail elsewhere.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from lowmem_rl.errors import RewardError
from lowmem_rl.rewards.adversarial_cases import RewardCase, Variant, Worth, as_sampled, hedges_of, variants_of
from lowmem_rl.rewards.isolated import LIMIT_S, isolated
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import Reward, RewardFailed, RewardSet, Rollout, score_all, score_with
from lowmem_rl.rewards.reward_finding import Fault, RewardFinding

_CLOSE_TO = 1e-9
_NOWHERE = Path(os.devnull)
"""Where goes what a reward prints about completions that nobody wrote."""


_Column = Sequence[float | None]
"""What one reward pays each completion of a trial; None if it skips one."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A case with all completions that are tried for it: the perfect one, its variants, then its hedges."""

    case: RewardCase
    variants: tuple[Variant, ...]
    rollout: Rollout

    @classmethod
    def of(cls, case: RewardCase, prefill: str) -> Self:
        variants = tuple(variants_of(case))
        completions = [
            as_sampled(case.perfect, prefill),
            *(as_sampled(v.completion, prefill, closed=v.worth != "worthless") for v in variants),
            *(as_sampled(hedge, prefill) for hedge in hedges_of(case)),
        ]
        return cls(case, variants, Rollout(completions, [case.example] * len(completions)))


@dataclass(frozen=True, slots=True)
class _CaseScores:
    """One case, scored by one reward or by the weighted sum of several; None if all of them skip it."""

    case: RewardCase
    perfect: float | None
    variants: tuple[tuple[Variant, float], ...]
    hedges: tuple[float, ...]

    @classmethod
    def of(cls, trial: _Trial, column: _Column) -> Self:
        perfect, *others = column
        paid = [score or 0.0 for score in others]
        variants = tuple(zip(trial.variants, paid, strict=False))
        return cls(trial.case, perfect, variants, tuple(paid[len(variants) :]))

    @property
    def gold(self) -> float:
        return self.perfect or 0.0

    def of_worth(self, worth: Worth) -> list[tuple[Variant, float]]:
        return [(variant, score) for variant, score in self.variants if variant.worth == worth]

    @property
    def separates(self) -> bool:
        """True if a wrong answer in the same form earns less than the right one."""
        return any(score < self.gold - _CLOSE_TO for _, score in self.of_worth("wrong"))


@dataclass(frozen=True, slots=True)
class _Check:
    """A reward, what it pays in each trial, and its faults; no columns if it was not scored or failed."""

    reward: Reward
    columns: Sequence[_Column]
    findings: list[RewardFinding]


def check_rewards(rewards: RewardSet, cases: Sequence[RewardCase], prefill: str = "") -> list[RewardFinding]:
    """Returns the faults of each reward, or else of all together; empty if there are none.

    `prefill` is how the chat template opens the assistant's turn. Rewards of kind "model" and "control" must only run
    without an error; what else is found of the kind "unknown" is a note. Each reward scores each completion once, and
    the first perfect one on another thread, too.
    """
    with isolated(rewards, log=_NOWHERE) as isolated_set:
        trials = [_Trial.of(case, prefill) for case in cases]
        checks = [_check(reward, trials, prefill) for reward in isolated_set.rewards]
        findings = [finding for check in checks for finding in check.findings]
        if len(rewards.rewards) > 1:  # one reward may pay too much if the others make up for it: the total decides
            findings = [finding for finding in findings if finding.fault != "outranked"]
        if any(finding.level == "error" for finding in findings):
            return findings
        outranked = _outranked_in_total(trials, checks, rewards.weights)
        return [*findings, outranked] if outranked else findings


def check_reward(
    reward: Reward, cases: Sequence[RewardCase], prefill: str = "", *, limit_s: float = LIMIT_S
) -> list[RewardFinding]:
    """Returns the faults of one reward by itself; none for a reward that still needs its model.

    A reward from a user's file runs in a process of its own, in which each score may take `limit_s` seconds.
    """
    with isolated(RewardSet((reward,), (1.0,)), limit_s, _NOWHERE) as isolated_set:
        return _check(isolated_set.rewards[0], [_Trial.of(case, prefill) for case in cases], prefill).findings


def _check(reward: Reward, trials: Sequence[_Trial], prefill: str) -> _Check:
    """Scores the trials, unless the reward needs its model, and returns the scores with what they show."""
    if isinstance(reward, ModelReward) or not trials:
        return _Check(reward, [], [])
    try:
        columns = [score_all(reward, trial.rollout) for trial in trials]
        return _Check(reward, columns, _findings(reward, [*map(_CaseScores.of, trials, columns)], prefill))
    except RewardFailed as error:
        what = str(error).removeprefix(f"Reward {reward.name!r} ").rstrip(".")
        return _Check(reward, [], [RewardFinding(what, error.hint, reward.name, error.fault)])


def _findings(reward: Reward, scored: Sequence[_CaseScores], prefill: str) -> list[RewardFinding]:
    if reward.kind in ("model", "control"):
        return []
    merit = _merit_fault(reward, scored, prefill) if reward.kind in ("merit", "unknown") else None
    if reward.kind == "unknown":  # it is called on the main thread
        return [replace(merit, level="note")] if merit else []
    return [finding for finding in (_thread_bound(reward, scored, prefill), merit) if finding]


def refuse(findings: Sequence[RewardFinding]) -> None:
    """Raises `RewardError` for the first error, if any; the faults of up to three others follow."""
    if errors := [finding for finding in findings if finding.level == "error"]:
        others = [f"{finding.reward}: {finding.fault}" for finding in errors[1:]]
        more = f" ({len(others)} more: {', '.join(others[:3])})" if others else ""
        raise RewardError(f"{errors[0]}{more}", hint=errors[0].fix)


def _thread_bound(reward: Reward, scored: Sequence[_CaseScores], prefill: str) -> RewardFinding | None:
    """Signals, the usual time limit, work only on the main thread; verl's rewards then paid 0 (verl #5635)."""
    first = scored[0]
    with ThreadPoolExecutor(1) as pool:
        completion = as_sampled(first.case.perfect, prefill)
        elsewhere = pool.submit(score_with, reward, completion, first.case.example).result()
    if elsewhere == first.perfect:
        return None
    what = f"pays a perfect completion {first.perfect} on the main thread and {elsewhere} on another"
    hint = "Use no signals in it; limit time in a separate process."
    return RewardFinding(what, hint, reward.name, "thread-bound")


def _merit_fault(reward: Reward, scored: Sequence[_CaseScores], prefill: str) -> RewardFinding | None:
    """Returns the first kind of fault that explains the scores: a constant reward is not also outranked."""
    for fault, find, hint in _MERIT_FAULTS:
        if what := find(reward, scored):
            return _unreachable(reward, scored, prefill) or RewardFinding(what, hint, reward.name, fault)
    return None


def _unreachable(reward: Reward, scored: Sequence[_CaseScores], prefill: str) -> RewardFinding | None:
    """Returns a finding if every perfect completion would earn more without the chat template's opening."""
    if not prefill:
        return None
    for one in scored:
        free = score_with(reward, one.case.perfect, one.case.example) or 0.0
        if free <= one.gold + _CLOSE_TO:
            return None
    what = f"cannot be earned under this chat template, which opens the turn with {prefill!r}"
    hint = "Let the reward accept the turn's opening as the template writes it."
    return RewardFinding(what, hint, reward.name, "unreachable")


def _constant(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    scores = {score for one in scored for _, score in one.variants} | {one.gold for one in scored}
    tried = sum(len(one.variants) + 1 for one in scored)
    return f"pays {scores.pop():g} for each of {tried} completions, perfect or empty" if len(scores) == 1 else None


def _never_full(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    best = max((one.gold for one in scored if one.perfect is not None), default=reward.high)
    almost_full = reward.high - 0.1 * (reward.high - max(reward.low, -reward.high))
    if reward.high == float("inf") or best >= almost_full:
        return None
    return f"pays the task's perfect completions at most {best:g} of {reward.high:g}"


def _outranked(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    for one in scored:
        variant, score = max(one.variants, key=lambda pair: pair[1])
        if one.perfect is not None and score > one.gold + _CLOSE_TO:
            return f"pays {score:g} for {variant.what}, more than the {one.gold:g} of the perfect completion"
    return None


def _unpaid(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    """A reward that separates right from wrong on one example must do so on every one."""
    lowest, highest = (choose(one.gold for one in scored) for choose in (min, max))
    unread = [one.case for one in scored if not one.separates and one.gold <= lowest + _CLOSE_TO]
    if not unread or lowest == highest or not any(one.separates for one in scored):
        return None
    shown = f"{unread[0].perfect[-60:]!r}, {unread[0].example.id!r}"
    return f"pays the perfect completion {lowest:g}, as a wrong one ({shown})"


def _blind(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    if any(one.separates for one in scored):  # else it is about the format
        for score, what, gold in _paid_as_perfect(scored, "wrong"):
            return f"pays {score:g} for {what}, and {gold:g} for the perfect completion"
    return None


def _worthless_paid(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    for score, what, _ in _paid_as_perfect([one for one in scored if one.separates], "worthless"):
        return f"pays {score:g} for {what}, as much as for the perfect completion"
    return None


def _paid_as_perfect(scored: Sequence[_CaseScores], worth: Worth) -> Iterator[tuple[float, str, float]]:
    """Yields each variant that earns as much as the perfect completion: its score, what it is, the perfect score."""
    for one in scored:
        for variant, score in one.of_worth(worth):
            if score >= one.gold - _CLOSE_TO:
                yield score, variant.what, one.gold


def _hedge_paid(reward: Reward, scored: Sequence[_CaseScores]) -> str | None:
    for one in scored:
        if one.separates and one.hedges and min(one.hedges) >= one.gold - _CLOSE_TO:
            return f"pays two answers {min(one.hedges):g}, whichever comes last (example {one.case.example.id!r})"
    return None


_MERIT_FAULTS: tuple[tuple[Fault, Callable[[Reward, Sequence[_CaseScores]], str | None], str], ...] = (
    ("constant", _constant, "A constant reward teaches nothing: fix it or leave it out."),
    ("never-full", _never_full, "Let the prompt ask for what this reward pays, or leave it out."),
    (
        "outranked",
        _outranked,
        "Pay the perfect completion most. To penalize only length, use Reward(..., kind='cost').",
    ),
    ("unpaid", _unpaid, "It does not read this form of answer: let it, or drop such examples."),
    ("blind", _blind, "Compare the whole answer, exactly."),
    ("worthless-paid", _worthless_paid, "Pay one stated answer, never its mere presence."),
    ("hedge-paid", _hedge_paid, "Read one answer: the last."),
)


def _outranked_in_total(
    trials: Sequence[_Trial], checks: Sequence[_Check], weights: Sequence[float]
) -> RewardFinding | None:
    """Returns a finding on the first completion for which the whole set pays more than for the perfect one.

    A right answer in poor form may gain by what penalizes length: that is the purpose of such costs.
    """
    scored = [(check, weight) for check, weight in zip(checks, weights, strict=True) if check.columns]
    weighted = [(check, weight) for check, weight in scored if check.reward.kind in ("merit", "cost")]
    merits = [(check, weight) for check, weight in weighted if check.reward.kind == "merit"]
    worths: dict[Worth, list[tuple[_Check, float]]] = {"wrong": weighted, "worthless": weighted, "right": merits}
    for worth, parts in worths.items():
        for total in map(_CaseScores.of, trials, _sums(parts)):
            variant, score = max(total.of_worth(worth), key=lambda pair: pair[1], default=(None, total.gold))
            if variant and score > total.gold + _CLOSE_TO:
                what = f"together pay {score:g} for {variant.what}, and {total.gold:g} for the perfect completion"
                hint = "Weigh the rewards so that the perfect completion earns most."
                return RewardFinding(what, hint, "all", "outranked")
    return None


def _sums(parts: Sequence[tuple[_Check, float]]) -> Iterator[_Column]:
    """Yields for each trial the weighted sums of what rewards pay; None if all of them skip a completion."""
    for columns in zip(*(check.columns for check, _ in parts), strict=True):
        rows = zip(*columns, strict=True)
        paid = [
            [weight * score for score, (_, weight) in zip(row, parts, strict=True) if score is not None] for row in rows
        ]
        yield [sum(row) if row else None for row in paid]
