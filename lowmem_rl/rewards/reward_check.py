"""Are the rewards of a run sound: found out on examples with known perfect completions, before a model is loaded.

Pure: rewards, trials and the chat template's opening in, findings out. What is found is a property of the
rewards on this task under this template, so that a reward can pass here and fail elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lowmem_rl.errors import RewardError
from lowmem_rl.rewards.adversarial_cases import RewardCase, Variant, as_sampled, hedges_of, probes_of
from lowmem_rl.rewards.isolated import LIMIT_S, isolated
from lowmem_rl.rewards.model_reward import ModelReward, without_model
from lowmem_rl.rewards.reward import Reward, RewardFailed, RewardSet, score_with
from lowmem_rl.rewards.reward_finding import RewardFinding

CLOSE_TO = 1e-9


@dataclass(frozen=True, slots=True)
class CaseScores:
    """A trial's scores by one scorer; None counts as 0, as beside other rewards."""

    trial: RewardCase
    perfect: float | None
    probes: tuple[tuple[Variant, float], ...]
    hedges: tuple[float, ...]

    @property
    def gold(self) -> float:
        return self.perfect or 0.0

    def of_worth(self, worth: str) -> list[tuple[Variant, float]]:
        return [(probe, score) for probe, score in self.probes if probe.worth == worth]

    @property
    def separates(self) -> bool:
        """Says whether a wrong answer in the same shape earns less than the right one."""
        return any(score < self.gold - CLOSE_TO for _, score in self.of_worth("wrong"))


Scorer = Callable[[str, RewardCase], float | None]


def check_rewards(rewards: RewardSet, trials: Sequence[RewardCase], prefill: str = "") -> list[RewardFinding]:
    """Returns what is wrong with each reward, or else with all together; empty where nothing is.

    `prefill` is what the chat template opens the assistant's turn with. Rewards that judge by the model or
    know nothing on purpose are only tried, not judged.
    """
    with isolated(rewards) as tried:
        findings = [finding for reward in tried.rewards for finding in check_reward(reward, trials, prefill)]
        if len(rewards.rewards) > 1:  # what one pays too much may be nothing beside the others: the total decides
            findings = [finding for finding in findings if finding.fault != "outranked"]
        return findings or list(_outranked_in_total(tried, trials, prefill))


def check_reward(
    reward: Reward, trials: Sequence[RewardCase], prefill: str = "", *, limit_s: float = LIMIT_S
) -> list[RewardFinding]:
    """Returns what is wrong with one reward by itself; nothing for one that has no model yet.

    A reward of a user's file is tried in a process of its own, where each score may take `limit_s` seconds.
    """
    if isinstance(reward, ModelReward) or not trials:
        return []
    with isolated(RewardSet((reward,), (1.0,)), limit_s) as tried:
        return _check(tried.rewards[0], trials, prefill)


def _check(reward: Reward, trials: Sequence[RewardCase], prefill: str) -> list[RewardFinding]:
    try:
        judged = [_judge(_scorer(reward), trial, prefill) for trial in trials]
        if reward.kind in ("model", "control"):
            return []
        merits = _faults_of_merit(reward, judged, prefill) if reward.kind == "merit" else []
        return [*_thread_bound(reward, judged, prefill), *merits]
    except RewardFailed as error:
        what = str(error).removeprefix(f"Reward {reward.name!r} ").rstrip(".")
        return [RewardFinding(what, error.hint, reward.name, error.fault)]


def refuse(findings: Sequence[RewardFinding]) -> None:
    """Raises `RewardError` for the first finding, if any; the others are named by their faults."""
    if findings:
        others = [f"{finding.reward}: {finding.fault}" for finding in findings[1:]]
        more = f" ({len(others)} more: {', '.join(others[:3])})" if others else ""
        raise RewardError(f"{findings[0]}{more}", hint=findings[0].fix)


def _faults_of_merit(reward: Reward, judged: Sequence[CaseScores], prefill: str) -> list[RewardFinding]:
    """Returns the first kind of fault that explains what was seen: a dead reward is not also outranked."""
    for find in (_constant, _never_full, _outranked, _unpaid, _blind, _worthless_paid, _hedge_paid):
        if found := list(find(reward, judged)):
            return [*_unreachable(reward, judged, prefill)] or found
    return []


def _scorer(reward: Reward) -> Scorer:
    return lambda completion, trial: score_with(reward, completion, trial.example)


def _judge(score: Scorer, trial: RewardCase, prefill: str) -> CaseScores:
    def value(completion: str, *, closed: bool = True) -> float:
        return score(as_sampled(completion, prefill, closed=closed), trial) or 0.0

    return CaseScores(
        trial,
        perfect=score(as_sampled(trial.perfect, prefill), trial),
        probes=tuple((p, value(p.completion, closed=p.worth != "worthless")) for p in probes_of(trial)),
        hedges=tuple(map(value, hedges_of(trial))),
    )


def _thread_bound(reward: Reward, judged: Sequence[CaseScores], prefill: str) -> Iterator[RewardFinding]:
    """Signals, the usual time limit, work on the main thread alone; verl's rewards then paid 0 (verl #5635)."""
    first = judged[0]
    completion = as_sampled(first.trial.perfect, prefill)
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(score_with, reward, completion, first.trial.example).result()
    if elsewhere != first.perfect:
        what = f"pays a perfect completion {first.perfect} on the main thread and {elsewhere} on another"
        yield RewardFinding(
            what, "Use no signals in it; limit time in a process of its own.", reward.name, "thread-bound"
        )


def _constant(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    scores = {score for one in judged for _, score in one.probes} | {one.gold for one in judged}
    if len(scores) == 1:
        tried = sum(len(one.probes) + 1 for one in judged)
        what = f"pays {scores.pop():g} for each of {tried} completions, perfect and empty ones alike"
        yield RewardFinding(
            what, "A constant reward teaches nothing: mend it or leave it out.", reward.name, "constant"
        )


def _never_full(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    paid = [one for one in judged if one.perfect is not None]
    if paid and reward.high < float("inf") and all(one.gold < _nearly(reward) for one in paid):
        best = max(one.gold for one in paid)
        what = f"pays the task's perfect completions at most {best:g} of {reward.high:g}"
        yield RewardFinding(
            what, "Let the prompt ask for what this reward pays, or leave it out.", reward.name, "never-full"
        )


def _nearly(reward: Reward) -> float:
    return reward.high - 0.1 * (reward.high - max(reward.low, -reward.high))


def _outranked(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    for one in judged:
        if one.perfect is None:
            continue
        probe, score = max(one.probes, key=lambda pair: pair[1])
        if score > one.gold + CLOSE_TO:
            what = f"pays {score:g} for {probe.what}, more than the {one.gold:g} of the perfect completion"
            yield RewardFinding(what, _OUTRANKED_HINT, reward.name, "outranked")
            return


_OUTRANKED_HINT = "Pay the perfect completion most. What only fines length is a Reward(..., kind='cost')."


def _unpaid(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    """A reward that tells right from wrong on one example must do so on each."""
    lowest, highest = (choose(one.gold for one in judged) for choose in (min, max))
    unread = [one for one in judged if not one.separates and one.gold <= lowest + CLOSE_TO]
    if unread and lowest < highest and any(one.separates for one in judged):
        trial = unread[0].trial
        what = f"pays the perfect completion {lowest:g}, as a wrong one ({trial.perfect[-60:]!r}, {trial.example.id!r})"
        yield RewardFinding(what, "It does not read this form of answer: let it, or drop them.", reward.name, "unpaid")


def _blind(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    if not any(one.separates for one in judged):
        return  # it is about the form
    for one in judged:
        for probe, score in one.of_worth("wrong"):
            if score >= one.gold - CLOSE_TO:
                what = f"pays {score:g} for {probe.what}, and {one.gold:g} for the perfect completion"
                yield RewardFinding(what, "Compare the whole answer, exactly.", reward.name, "blind")
                return


def _worthless_paid(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    for one in judged:
        for probe, score in one.of_worth("worthless") if one.separates else []:
            if score >= one.gold - CLOSE_TO:
                what = f"pays {score:g} for {probe.what}, as much as for the perfect completion"
                yield RewardFinding(
                    what, "Pay one stated answer, never its mere presence.", reward.name, "worthless-paid"
                )
                return


def _hedge_paid(reward: Reward, judged: Sequence[CaseScores]) -> Iterator[RewardFinding]:
    for one in judged:
        if one.separates and one.hedges and min(one.hedges) >= one.gold - CLOSE_TO:
            what = f"pays two answers {min(one.hedges):g}, whichever comes last (example {one.trial.example.id!r})"
            yield RewardFinding(what, "Read one answer: the last.", reward.name, "hedge-paid")
            return


def _unreachable(reward: Reward, judged: Sequence[CaseScores], prefill: str) -> Iterator[RewardFinding]:
    """Says so where a fault is the chat template's: without its opening, perfect completions would earn more."""
    if not prefill:
        return
    for one in judged:
        free = score_with(reward, one.trial.perfect, one.trial.example) or 0.0
        if free <= one.gold + CLOSE_TO:
            return
    what = f"cannot be earned under this chat template, which opens the turn with {prefill!r}"
    yield RewardFinding(
        what, "Let the reward take the turn's opening as the template writes it.", reward.name, "unreachable"
    )


def _outranked_in_total(rewards: RewardSet, trials: Sequence[RewardCase], prefill: str) -> Iterator[RewardFinding]:
    """Finds what a whole set pays more than the perfect completion.

    A right answer in poor shape may gain by what fines length: that is what fines are for.
    """
    tried = without_model(rewards)
    judging = [(r, w) for r, w in zip(tried.rewards, tried.weights, strict=True) if r.kind in ("merit", "cost")]
    merits = [(r, w) for r, w in judging if r.kind == "merit"]
    worths: Mapping[str, list[tuple[Reward, float]]] = {"wrong": judging, "worthless": judging, "right": merits}
    for worth, parts in worths.items() if judging else ():
        for trial in trials:
            judged = _judge(_total(parts), trial, prefill)
            probe, score = max(judged.of_worth(worth), key=lambda pair: pair[1], default=(None, judged.gold))
            if probe and score > judged.gold + CLOSE_TO:
                what = f"together pay {score:g} for {probe.what}, and {judged.gold:g} for the perfect completion"
                yield RewardFinding(
                    what, "Weigh the rewards so that the perfect completion earns most.", "all", "outranked"
                )
                return


def _total(parts: Sequence[tuple[Reward, float]]) -> Scorer:
    return lambda completion, trial: sum(
        weight * (score_with(reward, completion, trial.example) or 0.0) for reward, weight in parts
    )
