"""The charts of the page as plain data: values by step and a unit, without style."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import EvalRecord, RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import number, part
from lowmem_rl.units import GIB

Unit = Literal["number", "percent", "tokens", "seconds", "gib"]
_MOST_POINTS = 1500
"""Steps of a longer run that are drawn, evenly spaced: a screen cannot show more."""
_DIGITS = 5

Intervals = Mapping[int, Mapping[str, Any]]
"""The ends of intervals, as eval.json holds them, by x value."""
PASS_AT_K = "pass@k: one of k samples is right; maj@k: their most frequent answer is. 95 % intervals over items."
_HELD_OUT = {"pass_at_1": "held-out, any format", "strict_pass_at_1": "held-out, requested format"}


@dataclass(frozen=True, slots=True)
class Series:
    """One line; None if there is no value. Values of evaluations are drawn as points."""

    label: str
    values: tuple[float | None, ...]
    are_points: bool = False
    size: float = 8.0
    """Pixels across a point."""
    spans_gaps: bool = False
    """Joins values between which others are missing, as points always do."""


@dataclass(frozen=True, slots=True)
class Whisker:
    """A 95 % interval at an x value, of the series with this number."""

    x: int
    low: float
    high: float
    series: int


@dataclass(frozen=True, slots=True)
class Band:
    """Two ends for each x value, or None, around the series with this number."""

    series: int
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same x values, which are steps unless `along` names something else."""

    title: str
    note: str
    unit: Unit
    xs: tuple[float, ...]
    series: tuple[Series, ...]
    whiskers: tuple[Whisker, ...] = field(default=())
    along: str = "step"
    bands: tuple[Band, ...] = field(default=())


_LINES: tuple[tuple[str, str, Unit, dict[str, str]], ...] = (
    (
        "Informative groups",
        "Groups whose rewards differ: the others carry no signal.",
        "percent",
        {"informative_share": "informative"},
    ),
    ("KL divergence", "From the base model, in nats per token.", "number", {"kl": "KL"}),
    ("Entropy", "Of the next token, in nats: near 0, all samples are equal.", "number", {"entropy": "entropy"}),
    (
        "Completion length",
        "Tokens of the sampled completions.",
        "tokens",
        {"completion_tokens": "mean", "longest_completion_tokens": "longest"},
    ),
    ("Truncated", "Completions cut off at grpo.max_completion_tokens.", "percent", {"truncated_share": "truncated"}),
    (
        "Step time",
        "Seconds of a step and of its longer parts.",
        "seconds",
        {f"{phase}_s": phase for phase in ("rollout", "scoring", "logprobs", "update", "step")},
    ),
    ("Memory", "The peak so far, in GiB.", "gib", {"peak_bytes": "peak"}),
    ("Gradient norm", "Before clipping.", "number", {"grad_norm": "gradient norm"}),
)


def charts_of(record: RunRecord) -> list[Chart]:
    """Returns the charts that have values."""
    rows = thinned(record.metrics)
    scores = dict.fromkeys(key for row in rows for key in row if key.startswith("scores/"))
    rewards = {"reward": "reward"} | {key: one_line(key.removeprefix("scores/"), 30) for key in scores}
    charts = [
        _accuracy(rows, record.evaluations),
        _lines(rows, "Reward", "The weighted total, and the mean score of each part.", "number", rewards),
        *(_lines(rows, *about) for about in _LINES),
        _several_samples(record),
    ]
    return [chart for chart in charts if chart.series]


def sample_counts(result: Mapping[str, Any]) -> list[int]:
    """Returns the k for which a result has pass@k; other keys are ignored."""
    return sorted(int(k) for k in part(result, "pass_at_k") if k.isdecimal() and len(k) < 6)


def rounded(value: float | None, scale: int = 1) -> float | None:
    """Returns a value with as many digits as a screen can show."""
    return None if value is None else float(f"{value / scale:.{_DIGITS}g}")


def thinned(rows: Sequence[Any]) -> Sequence[Any]:
    """Returns evenly spaced rows of many, the last among them."""
    stride = -(-len(rows) // _MOST_POINTS) or 1
    return [row for index, row in enumerate(rows) if index % stride == 0 or index == len(rows) - 1]


def _accuracy(rows: Sequence[Row], evaluations: Sequence[EvalRecord]) -> Chart:
    sampled = {row["step"]: number(row, "accuracy") for row in rows}
    results = {evaluation.step: evaluation.result for evaluation in evaluations}
    steps = tuple(sorted(sampled.keys() | results.keys()))
    # Equal lines would hide each other.
    differ = any(number(e.result, "pass_at_1") != number(e.result, "strict_pass_at_1") for e in evaluations)
    held_out = _HELD_OUT if differ else {"pass_at_1": "held-out"}
    note = "Right answers. Held-out: greedy, with 95 % intervals; in training: sampled."
    if evaluations and not differ:
        note += " All right answers were in the requested format."
    lines = [Series("sampled in training", tuple(rounded(sampled.get(step)) for step in steps))]
    intervals: dict[str, Intervals] = {}
    for key, label in held_out.items():
        values = (number(results.get(step, {}), key) for step in steps)
        lines.append(Series(label, tuple(map(rounded, values)), are_points=True))
        intervals[label] = {step: part(result, f"{key}_interval") for step, result in results.items()}
    series = _with_values(lines)
    return Chart("Accuracy", note, "percent", steps, series, tuple(_whiskers(series, intervals)))


def _several_samples(record: RunRecord) -> Chart:
    """Returns the shares by the number of samples, before and after."""
    ends = {when: end.result for when, end in (("before", record.before), ("after", record.latest)) if end}
    ks = sorted({k for result in ends.values() for k in sample_counts(result)})
    lines, intervals = [], {}
    for name in ("pass", "maj"):
        for when, result in ends.items():
            label = f"{name}@k {when}"
            shares, bounds = part(result, f"{name}_at_k"), part(result, f"{name}_at_k_intervals")
            lines.append(Series(label, tuple(rounded(number(shares, str(k))) for k in ks), are_points=True))
            intervals[label] = {k: part(bounds, str(k)) for k in ks}
    series = _with_values(lines) if len(ks) > 1 else ()
    whiskers = tuple(_whiskers(series, intervals))
    return Chart("Several samples", PASS_AT_K, "percent", tuple(ks), series, whiskers, along="k")


def _whiskers(series: Sequence[Series], intervals: Mapping[str, Intervals]) -> Iterator[Whisker]:
    for which, one in enumerate(series):
        for x, interval in intervals.get(one.label, {}).items():
            low, high = number(interval, "low"), number(interval, "high")
            if low is not None and high is not None:
                yield Whisker(x, low, high, which)


def _lines(rows: Sequence[Row], title: str, note: str, unit: Unit, labels: dict[str, str]) -> Chart:
    scale = GIB if unit == "gib" else 1
    series = [Series(label, tuple(rounded(number(row, key), scale) for row in rows)) for key, label in labels.items()]
    return Chart(title, note, unit, tuple(row["step"] for row in rows), _with_values(series))


def _with_values(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(one for one in series if any(value is not None for value in one.values))
