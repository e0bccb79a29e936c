"""`EvalResult`: the result of an evaluation, with its uncertainty."""

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

    `pass_at_1` is greedy and lenient (the answer anywhere in the completion), `strict_pass_at_1` requires the
    requested format: `grader.py`. By k, `pass_at_k` is the chance that one of k samples is right and `maj_at_k` that
    the most frequent answer of k is; with one sample, the greedy completion, both equal `pass_at_1`.
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
    """Of this process alone, if an evaluation was stopped and resumed."""
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
    """True if the run learns this task; None if there is no run."""
    kl_nats: float | None = None
    """Mean KL divergence from the base model, in nats per token, over the first greedy completions."""

    late_verdicts: int = 0
    """Comparisons with a gold answer that took too long and counted as unequal, over all completions."""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Row) -> "EvalResult":
        """Returns a result that `to_json` wrote, also in an older version. Raises `RunDirError` if it is damaged."""
        try:
            return cls(**{one.name: _value(one.name, row[one.name]) for one in fields(cls) if one.name in row})
        except (TypeError, AttributeError) as error:
            raise RunDirError("An evaluation in eval.json is damaged.", hint="Remove it from the file.") from error


def _value(name: str, value: Any) -> Any:
    """Returns a field's JSON value as the object it was."""
    if name.endswith("_interval"):
        return Interval(**value)
    if name.endswith("_intervals"):
        return {k: Interval(**row) for k, row in value.items()}
    if name == "by_level":
        return {level: LevelResult(**{key: _value(key, v) for key, v in row.items()}) for level, row in value.items()}
    return value
