"""From judged completions to an `EvalResult`, and from two to what was gained."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from lowmem_rl.evaluation.eval_items import Item
from lowmem_rl.evaluation.eval_result import EvalResult, LevelResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.stats import Interval, PairedDifference, clustered_mean, compare_shared, maj_at_k, pass_at_k, wilson

Rated = tuple[dict[str, float], dict[str, Interval]]
"""Shares and their intervals by k."""


def summarise(
    asked: EvalSet,
    items: Sequence[Item],
    sampled: Sequence[Item],
    *,
    step: int,
    seconds: float,
    kl_nats: float | None = None,
) -> EvalResult:
    """Sums up greedy completions, one an example, and samples, equally many of each. `items` is not empty."""
    total = len(items)
    correct, strict = sum(i.correct for i in items), sum(i.strict for i in items)
    by_example = grouped(sampled or items, lambda item: item.example_id)
    passed, majority = _rated(by_example, passes), _rated(by_example, majorities)
    strict_passed, strict_majority = _rated(by_example, strict_passes), _rated(by_example, strict_majorities)
    return EvalResult(
        task=asked.task.name,
        split="test",
        step=step,
        num_examples=total,
        samples=asked.samples if sampled else 1,
        pass_at_1=correct / total,
        pass_at_1_interval=wilson(correct, total),
        strict_pass_at_1=strict / total,
        strict_pass_at_1_interval=wilson(strict, total),
        pass_at_k=passed[0],
        pass_at_k_intervals=passed[1],
        maj_at_k=majority[0],
        maj_at_k_intervals=majority[1],
        strict_pass_at_k=strict_passed[0],
        strict_pass_at_k_intervals=strict_passed[1],
        strict_maj_at_k=strict_majority[0],
        strict_maj_at_k_intervals=strict_majority[1],
        scores=mean_scores([item.scores for item in items]),
        completion_tokens=sum(i.tokens for i in items) / total,
        truncated_share=sum(i.truncated for i in items) / total,
        sampled_truncated_share=sum(i.truncated for i in sampled) / len(sampled) if sampled else None,
        by_level=_by_level(items),
        in_domain=asked.in_domain,
        kl_nats=kl_nats,
        seconds=seconds,
    )


def ks(samples: int) -> list[int]:
    """Returns the k that are told: the powers of two up to the number of samples, and that number."""
    return sorted({samples, *(1 << power for power in range(samples.bit_length()))})


def passes(items: Sequence[Item], k: int) -> float:
    """Returns the chance that one of k samples of one example is right."""
    return pass_at_k(len(items), sum(item.correct for item in items), k)


def strict_passes(items: Sequence[Item], k: int) -> float:
    """Returns the same for right answers in the asked form."""
    return pass_at_k(len(items), sum(item.strict for item in items), k)


def majorities(items: Sequence[Item], k: int) -> float:
    """Returns how often the most frequent answer of k samples of one example is right."""
    return _majorities([item.vote for item in items], [item.correct for item in items], k)


def strict_majorities(items: Sequence[Item], k: int) -> float:
    """Returns the same for answers in the asked form alone."""
    return _majorities([item.strict_vote for item in items], [item.strict for item in items], k)


def _majorities(votes: Sequence[str | None], is_right: Sequence[bool], k: int) -> float:
    # A judge may look at more than the answer: equal ones of which one is right are two answers then.
    apart = [None if vote is None else f"{right} {vote}" for vote, right in zip(votes, is_right, strict=True)]
    return maj_at_k(apart, is_right, k)


def _rated(by_example: Mapping[str, Sequence[Item]], rate: Callable[[Sequence[Item], int], float]) -> Rated:
    samples = len(next(iter(by_example.values())))
    found = {str(k): clustered_mean([rate(items, k) for items in by_example.values()], samples) for k in ks(samples)}
    return {k: share for k, (share, _) in found.items()}, {k: interval for k, (_, interval) in found.items()}


def _by_level(items: Sequence[Item]) -> dict[str, LevelResult]:
    """Returns the levels in ascending order; nothing where no example has one."""
    levels = grouped([item for item in items if item.level is not None], lambda item: item.level or 0)
    return {str(level): _level(levels[level]) for level in sorted(levels)}


def _level(items: Sequence[Item]) -> LevelResult:
    total, correct, strict = len(items), sum(i.correct for i in items), sum(i.strict for i in items)
    return LevelResult(total, correct / total, wilson(correct, total), strict / total, wilson(strict, total))


T = TypeVar("T")


def grouped(items: Sequence[Item], key: Callable[[Item], T]) -> dict[T, list[Item]]:
    """Returns the items by a key, in their order."""
    groups: dict[T, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def mean_scores(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns each score's mean over the completions it was not skipped on."""
    names = dict.fromkeys(name for row in scores for name in row)
    given = {name: [value for row in scores if (value := row.get(name)) is not None] for name in names}
    return {name: sum(values) / len(values) for name, values in given.items() if values}


def compare(
    before: EvalResult, after: EvalResult, first: Sequence[Item] = (), second: Sequence[Item] = ()
) -> dict[str, Any]:
    """Says by how much greedy accuracy changed, and on the items of both whether chance alone does such a thing.

    The paired test sees more than the two intervals: what is hard for both is no noise between them.
    """
    return {
        "gain": after.pass_at_1 - before.pass_at_1,
        "strict_gain": after.strict_pass_at_1 - before.strict_pass_at_1,
        "intervals_apart": before.pass_at_1_interval.apart_from(after.pass_at_1_interval),
        "paired": _told(compare_shared(_shares(first, "correct"), _shares(second, "correct"))),
        "strict_paired": _told(compare_shared(_shares(first, "strict"), _shares(second, "strict"))),
    }


def _shares(items: Sequence[Item], judged: str) -> dict[str, float]:
    return {item.example_id: float(getattr(item, judged)) for item in items}


def _told(found: PairedDifference | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found) | {"distinguishable": found.is_distinguishable}
