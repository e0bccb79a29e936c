"""`EvalResult`: what an evaluation says, with its uncertainty."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.stats import Interval
from lowmem_rl.storage.run_dir import Row


@dataclass(frozen=True, slots=True)
class LevelResult:
    """The greedy answers to the examples of one level."""

    num_examples: int
    pass_at_1: float
    pass_at_1_interval: Interval
    strict_pass_at_1: float
    strict_pass_at_1_interval: Interval


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Results over `num_examples`; shares in [0, 1] with 95 % intervals whose unit is the item.

    `pass_at_1` is greedy and lenient (the answer wherever it stands), `strict_pass_at_1` wants the asked form:
    `judge.py`. By k, `pass_at_k` is the chance that one of k samples is right and `maj_at_k` that the most frequent
    answer of k is; with one sample, which is the greedy completion, both are `pass_at_1`.
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
    """Of this process alone, where an evaluation was stopped and taken up again."""
    pass_at_k_intervals: dict[str, Interval] = field(default_factory=dict)
    maj_at_k_intervals: dict[str, Interval] = field(default_factory=dict)
    strict_pass_at_k: dict[str, float] = field(default_factory=dict)
    strict_pass_at_k_intervals: dict[str, Interval] = field(default_factory=dict)
    strict_maj_at_k: dict[str, float] = field(default_factory=dict)
    strict_maj_at_k_intervals: dict[str, Interval] = field(default_factory=dict)
    sampled_truncated_share: float | None = None
    """Of the samples; `truncated_share` is of the greedy completions."""
    by_level: dict[str, LevelResult] = field(default_factory=dict)
    in_domain: bool | None = None
    """The task is the one that the run learns; None where none was learnt."""
    kl_nats: float | None = None
    """Mean KL divergence from the base model, in nats a token, over the first greedy completions."""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Row) -> "EvalResult":
        """Returns a result that `to_json` has written, also an older version's. Raises `RunDirError`."""
        try:
            return cls(**_read({one.name: told[one.name] for one in fields(cls) if one.name in told}))
        except (TypeError, AttributeError) as error:
            raise RunDirError("An evaluation in eval.json is damaged.", hint="Remove it from the file.") from error


def _interval(told: Row) -> Interval:
    return Interval(**told)


def _intervals(told: dict[str, Row]) -> dict[str, Interval]:
    return {k: _interval(row) for k, row in told.items()}


def _levels(told: dict[str, Row]) -> dict[str, LevelResult]:
    return {level: LevelResult(**_read(row)) for level, row in told.items()}


def _read(told: Row) -> Row:
    return {name: _READERS[name](value) if name in _READERS else value for name, value in told.items()}


_READERS: dict[str, Any] = {
    "pass_at_1_interval": _interval,
    "strict_pass_at_1_interval": _interval,
    "pass_at_k_intervals": _intervals,
    "maj_at_k_intervals": _intervals,
    "strict_pass_at_k_intervals": _intervals,
    "strict_maj_at_k_intervals": _intervals,
    "by_level": _levels,
}
