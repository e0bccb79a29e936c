"""`EvalResult`: what an evaluation says, with its uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lowmem_rl.stats import Interval, wilson


@dataclass(frozen=True, slots=True)
class Item:
    """One example's completion and how it was scored; `correct` is lenient, `strict` wants the asked form."""

    example_id: str
    prompt: str
    answer: str
    completion: str
    tokens: int
    truncated: bool
    correct: bool
    strict: bool
    scores: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Greedy results over `num_examples`; shares in [0, 1] with 95 % Wilson intervals.

    `pass_at_1` is lenient (the answer wherever it stands), `strict_pass_at_1` wants the asked form: `judge.py`.
    """

    task: str
    split: str
    step: int
    num_examples: int
    samples: int
    pass_at_1: float
    pass_at_1_interval: Interval
    strict_pass_at_1: float
    strict_pass_at_1_interval: Interval
    pass_at_k: dict[str, float]
    maj_at_k: dict[str, float]
    scores: dict[str, float]
    completion_tokens: float
    truncated_share: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def result_of(found: Mapping[str, Any]) -> EvalResult:
    """Returns the result that `to_json` wrote down."""
    intervals = {key: Interval(**found[key]) for key in found if key.endswith("_interval")}
    return EvalResult(**{**found, **intervals})


def summarise(items: Sequence[Item], *, task: str, split: str, step: int, seconds: float) -> EvalResult:
    """Sums up greedy completions, one an example. `items` is not empty."""
    total = len(items)
    correct, strict = sum(i.correct for i in items), sum(i.strict for i in items)
    return EvalResult(
        task=task,
        split=split,
        step=step,
        num_examples=total,
        samples=1,
        pass_at_1=correct / total,
        pass_at_1_interval=wilson(correct, total),
        strict_pass_at_1=strict / total,
        strict_pass_at_1_interval=wilson(strict, total),
        pass_at_k={"1": correct / total},
        maj_at_k={"1": correct / total},
        scores=mean_scores([item.scores for item in items]),
        completion_tokens=sum(i.tokens for i in items) / total,
        truncated_share=sum(i.truncated for i in items) / total,
        seconds=seconds,
    )


def mean_scores(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns each score's mean over the completions it was not skipped on."""
    names = dict.fromkeys(name for row in scores for name in row)
    given = {name: [value for row in scores if (value := row.get(name)) is not None] for name in names}
    return {name: sum(values) / len(values) for name, values in given.items() if values}


def compare(before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """Says by how much lenient greedy accuracy changed, and whether the intervals share no point."""
    return {
        "gain": after.pass_at_1 - before.pass_at_1,
        "strict_gain": after.strict_pass_at_1 - before.strict_pass_at_1,
        "intervals_apart": before.pass_at_1_interval.apart_from(after.pass_at_1_interval),
    }
