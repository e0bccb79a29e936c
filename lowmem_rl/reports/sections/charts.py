"""What the page draws, as plain data: each chart has values by step, a unit, and nothing of how it looks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import EvalRecord, RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import number, part
from lowmem_rl.units import GIB

Unit = Literal["number", "percent", "tokens", "seconds", "gib"]
MOST_POINTS = 1500
"""Steps of a longer run that are drawn, evenly spaced: more cannot be told apart on a screen."""
DIGITS = 5

Intervals = Mapping[int, Mapping[str, Any]]
"""The ends of intervals, as eval.json holds them, by place."""
TRIES = "pass@k: one of k samples is right; maj@k: the most frequent answer of k is. 95 % intervals over items."
HELD_OUT = {"pass_at_1": "held-out, answer anywhere", "strict_pass_at_1": "held-out, asked form"}


@dataclass(frozen=True, slots=True)
class Series:
    """One line; None where there is no value. Values of evaluations stand alone and are drawn as points."""

    label: str
    values: tuple[float | None, ...]
    are_points: bool = False


@dataclass(frozen=True, slots=True)
class Whisker:
    """A 95 % interval at a place, of the series with this number."""

    x: int
    low: float
    high: float
    series: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same places, which are steps unless `along` says otherwise."""

    title: str
    note: str
    unit: Unit
    xs: tuple[float, ...]
    series: tuple[Series, ...]
    whiskers: tuple[Whisker, ...] = field(default=())
    along: str = "step"


LINES: tuple[tuple[str, str, Unit, dict[str, str]], ...] = (
    (
        "Informative groups",
        "Groups whose rewards differ: the others teach nothing.",
        "percent",
        {"informative_share": "informative"},
    ),
    ("KL divergence", "From the base model, in nats a token.", "number", {"kl": "KL"}),
    ("Entropy", "Of the next token, in nats: near 0 all samples are alike.", "number", {"entropy": "entropy"}),
    (
        "Completion length",
        "Tokens of the sampled completions.",
        "tokens",
        {"completion_tokens": "mean", "longest_completion_tokens": "longest"},
    ),
    (
        "Truncated",
        "Completions cut off at grpo.max_completion_tokens.",
        "percent",
        {"truncated_share": "truncated"},
    ),
    (
        "Step time",
        "Seconds of a step and of its longer parts.",
        "seconds",
        {
            "rollout_s": "rollout",
            "scoring_s": "scoring",
            "logprobs_s": "logprobs",
            "update_s": "update",
            "step_s": "step",
        },
    ),
    ("Memory", "The most that was held so far, in GiB.", "gib", {"peak_bytes": "peak"}),
    ("Gradient norm", "Before clipping.", "number", {"grad_norm": "gradient norm"}),
)


def charts_of(record: RunRecord) -> list[Chart]:
    """Returns the charts for which there are values."""
    rows = thinned(record.metrics)
    drawn = [_accuracy(rows, record.evaluations), _reward(rows), *(_lines(rows, *about) for about in LINES)]
    drawn.append(_tries(record))
    return [chart for chart in drawn if any(v is not None for series in chart.series for v in series.values)]


def _accuracy(rows: Sequence[Row], evaluations: Sequence[EvalRecord]) -> Chart:
    sampled = {row["step"]: number(row, "accuracy") for row in rows}
    results = {evaluation.step: evaluation.result for evaluation in evaluations}
    steps = tuple(sorted(sampled.keys() | results.keys()))
    held_out = HELD_OUT if _differ(evaluations) else {"pass_at_1": "held-out"}
    note = "Right answers. Held-out: greedy, with 95 % intervals; in training: sampled."
    if len(held_out) == 1 and evaluations:
        note += " All that were right were in the asked form."
    lines = [Series("sampled in training", tuple(rounded(sampled.get(step)) for step in steps))]
    intervals: dict[str, Intervals] = {}
    for key, label in held_out.items():
        values = (number(results.get(step, {}), key) for step in steps)
        lines.append(Series(label, tuple(map(rounded, values)), are_points=True))
        intervals[label] = {step: part(result, f"{key}_interval") for step, result in results.items()}
    series = _with_values(lines)
    return Chart("Accuracy", note, "percent", steps, series, tuple(_whiskers(series, intervals)))


def _tries(record: RunRecord) -> Chart:
    """Shares by the number of samples, before and after."""
    ends = {when: end.result for when, end in (("before", record.before), ("after", record.latest)) if end}
    ks = sorted({k for told in ends.values() for k in tries_in(told)})
    named = {f"{name}@k {when}": (told, f"{name}_at_k") for name in ("pass", "maj") for when, told in ends.items()}
    lines = [
        Series(label, tuple(rounded(number(part(told, key), str(k))) for k in ks), are_points=True)
        for label, (told, key) in named.items()
    ]
    intervals = {
        label: {k: part(part(told, f"{key}_intervals"), str(k)) for k in ks} for label, (told, key) in named.items()
    }
    series = _with_values(lines) if len(ks) > 1 else ()
    return Chart("More than one try", TRIES, "percent", tuple(ks), series, tuple(_whiskers(series, intervals)), "k")


def tries_in(told: Mapping[str, Any]) -> list[int]:
    """Returns the k of pass@k for which there are figures; other keys are none of ours."""
    return sorted(int(k) for k in part(told, "pass_at_k") if k.isdecimal() and len(k) < 6)


def _differ(evaluations: Sequence[EvalRecord]) -> bool:
    """False where one line would hide the other."""
    return any(number(e.result, "pass_at_1") != number(e.result, "strict_pass_at_1") for e in evaluations)


def _whiskers(series: Sequence[Series], intervals: Mapping[str, Intervals]) -> Iterator[Whisker]:
    for which, one in enumerate(series):
        for x, interval in intervals.get(one.label, {}).items():
            low, high = number(interval, "low"), number(interval, "high")
            if low is not None and high is not None:
                yield Whisker(x, low, high, which)


def _reward(rows: Sequence[Row]) -> Chart:
    names = {"reward": "reward"} | {key: one_line(key.removeprefix("scores/"), 30) for key in _score_keys(rows)}
    return _lines(rows, "Reward", "The weighted total, and the mean score of each part.", "number", names)


def _score_keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith("scores/")))


def _lines(rows: Sequence[Row], title: str, note: str, unit: Unit, labels: dict[str, str]) -> Chart:
    scale = GIB if unit == "gib" else 1
    series = [Series(label, tuple(rounded(number(row, key), scale) for row in rows)) for key, label in labels.items()]
    return Chart(title, note, unit, tuple(row["step"] for row in rows), _with_values(series))


def _with_values(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(one for one in series if any(value is not None for value in one.values))


def rounded(value: float | None, scale: int = 1) -> float | None:
    """Returns a value with as many digits as can be told apart on a screen."""
    return None if value is None else float(f"{value / scale:.{DIGITS}g}")


def thinned(rows: Sequence[Any]) -> Sequence[Any]:
    """Returns evenly spaced rows of many, the last among them."""
    stride = -(-len(rows) // MOST_POINTS) or 1
    return [row for index, row in enumerate(rows) if index % stride == 0 or index == len(rows) - 1]
