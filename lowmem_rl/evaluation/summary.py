"""From graded completions to an `EvalResult`, and from two of them to the gain."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from lowmem_rl.config.places import without_folder
from lowmem_rl.evaluation.eval_items import Item
from lowmem_rl.evaluation.eval_result import EvalResult, LevelResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.stats import clustered_mean, compare_shared, maj_at_k, pass_at_k, wilson


def summarise(
    eval_set: EvalSet,
    items: Sequence[Item],
    sampled: Sequence[Item],
    *,
    step: int,
    seconds: float,
    kl_nats: float | None = None,
) -> EvalResult:
    """Summarises greedy completions, one per example, and samples, equally many of each. `items` is not empty."""
    total, greedy = len(items), _accuracy(items)
    levels = _grouped([item for item in items if item.level is not None], lambda item: item.level or 0)
    return EvalResult(
        task=without_folder(eval_set.task.name),
        split="test",
        step=step,
        num_examples=total,
        samples=eval_set.samples if sampled else 1,
        pass_at_1=greedy.pass_at_1,
        pass_at_1_interval=greedy.pass_at_1_interval,
        strict_pass_at_1=greedy.strict_pass_at_1,
        strict_pass_at_1_interval=greedy.strict_pass_at_1_interval,
        **_rates(sampled or items),
        scores=_mean_scores([item.scores for item in items]),
        completion_tokens=sum(i.tokens for i in items) / total,
        truncated_share=sum(i.truncated for i in items) / total,
        sampled_truncated_share=sum(i.truncated for i in sampled) / len(sampled) if sampled else None,
        by_level={str(level): _accuracy(levels[level]) for level in sorted(levels)},
        in_domain=eval_set.in_domain,
        kl_nats=kl_nats,
        late_verdicts=sum(item.late_verdicts for item in (*items, *sampled)),
        seconds=seconds,
    )


def ks(samples: int) -> list[int]:
    """Returns the k that are reported: the powers of two up to the number of samples, and that number."""
    return sorted({samples, *(1 << power for power in range(samples.bit_length()))})


def _pass_rate(items: Sequence[Item], k: int, *, strict: bool) -> float:
    """Returns the chance that one of k samples of one example is right."""
    return pass_at_k(len(items), sum(item.strict if strict else item.correct for item in items), k)


def _majority_rate(items: Sequence[Item], k: int, *, strict: bool) -> float:
    """Returns how often the most frequent answer of k samples of one example is right."""
    is_right = [item.strict if strict else item.correct for item in items]
    votes = [item.strict_vote if strict else item.vote for item in items]
    # A grader may read more than the answer: of equal answers one can be right and one wrong. They are two votes.
    keys = [None if vote is None else f"{right} {vote}" for vote, right in zip(votes, is_right, strict=True)]
    return maj_at_k(keys, is_right, k)


def _rates(items: Sequence[Item]) -> dict[str, Any]:
    """Returns the fields of pass@k and maj@k, lenient and strict: shares and their intervals by k."""
    by_example = list(_grouped(items, lambda item: item.example_id).values())
    samples = len(by_example[0])
    fields: dict[str, Any] = {}
    for name, rate in (("pass_at_k", _pass_rate), ("maj_at_k", _majority_rate)):
        for strict in (False, True):
            found = {k: clustered_mean([rate(i, k, strict=strict) for i in by_example], samples) for k in ks(samples)}
            field = f"strict_{name}" if strict else name
            fields[field] = {str(k): share for k, (share, _) in found.items()}
            fields[f"{field}_intervals"] = {str(k): interval for k, (_, interval) in found.items()}
    return fields


def _accuracy(items: Sequence[Item]) -> LevelResult:
    total, correct, strict = len(items), sum(i.correct for i in items), sum(i.strict for i in items)
    return LevelResult(total, correct / total, wilson(correct, total), strict / total, wilson(strict, total))


K = TypeVar("K", bound=Hashable)


def _grouped(items: Sequence[Item], key: Callable[[Item], K]) -> dict[K, list[Item]]:
    groups: dict[K, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _mean_scores(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns each score's mean over the completions on which it was not skipped."""
    names = dict.fromkeys(name for row in scores for name in row)
    given = {name: [value for row in scores if (value := row.get(name)) is not None] for name in names}
    return {name: sum(values) / len(values) for name, values in given.items() if values}


def compare(
    before: EvalResult, after: EvalResult, first: Sequence[Item] = (), second: Sequence[Item] = ()
) -> dict[str, Any]:
    """Returns how much greedy accuracy changed, and on the shared items whether chance alone explains the change.

    The paired test is sharper than the two intervals: items that are hard for both add no noise.
    """
    return {
        "gain": after.pass_at_1 - before.pass_at_1,
        "strict_gain": after.strict_pass_at_1 - before.strict_pass_at_1,
        "intervals_apart": before.pass_at_1_interval.is_disjoint_from(after.pass_at_1_interval),
        "paired": _paired(first, second, "correct"),
        "strict_paired": _paired(first, second, "strict"),
    }


def _paired(first: Sequence[Item], second: Sequence[Item], grade: str) -> dict[str, Any] | None:
    shares = ({item.example_id: float(getattr(item, grade)) for item in items} for items in (first, second))
    found = compare_shared(*shares)
    return None if found is None else asdict(found) | {"distinguishable": found.is_distinguishable}
