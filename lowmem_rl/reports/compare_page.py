"""A comparison of runs as a page: which learned more, their learning curves, and the settings that differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lowmem_rl.reports.compare import UNSET, Comparison, RunPair
from lowmem_rl.reports.escape import one_line, p_text, points
from lowmem_rl.reports.html import fill, write_page
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.reports.sections.charts import Chart, Series, rounded, thinned
from lowmem_rl.reports.sections.curves import CurvePoint, learning_curve
from lowmem_rl.reports.sections.results import share

_Value = Callable[[CurvePoint], float | None]
_ALONG: dict[str, tuple[_Value, str]] = {
    "step": (lambda point: point.step, ""),
    "tokens": (lambda point: point.tokens, " Prompts and completions together."),
    "minutes": (lambda point: round(point.seconds / 60, 4), " Evaluations are not counted."),
}
"""The x axes, each with a note."""


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Writes the page and returns where it is. Raises `RunDirError`."""
    return write_page(render_comparison(comparison), out)


def render_comparison(comparison: Comparison) -> str:
    """Returns the page."""
    names = [one_line(name, 60) for name in comparison.names]
    tables = [_results(comparison, names), _pairs(comparison), _settings(comparison, names)]
    return fill(
        "compare",
        followed=False,
        title=" · ".join(names),
        charts=[asdict(chart) for chart in _charts(comparison, names)],
        headline=_headline(comparison),
        tables=[table for table in tables if table.rows],
        same=not comparison.differences,
    )


def _headline(comparison: Comparison) -> str:
    """Returns in a line which runs are better or worse than the first."""
    first, found = one_line(comparison.names[0], 40), []
    for verdict in ("better", "worse"):
        runs = [one_line(pair.second, 40) for pair in comparison.pairs if pair.verdict == verdict]
        found += [f"{verdict.capitalize()} than {first}: {', '.join(runs)}"] if runs else []
    return "; ".join(found) or "Not distinguishable"


def _results(comparison: Comparison, names: Sequence[str]) -> PageTable:
    rows = tuple(
        (
            name,
            one_line(result["step"], 12),
            one_line(result.get("num_examples", "-"), 12),
            share(result, "pass_at_1"),
            share(result, "strict_pass_at_1"),
        )
        for name, result in zip(names, comparison.results, strict=True)
    )
    task = one_line(comparison.results[0].get("task"), 60)
    note = f"Each run's last evaluation on {task}, greedy, with 95 % intervals."
    return PageTable("Results", note, ("run", "step", "items", "any format", "requested format"), rows)


def _pairs(comparison: Comparison) -> PageTable:
    pairs = comparison.pairs
    adjusted = f" P-values are adjusted for {len(pairs)} comparisons." if len(pairs) > 1 else ""
    rule = "a difference counts if chance alone makes it in less than one of 20 comparisons"
    note = f"The same items, paired; {rule}.{adjusted}"
    head = (f"against {one_line(comparison.names[0], 40)}", "", "any format", "requested format", "items won and lost")
    return PageTable("Against the first", note, head, tuple(map(_pair, pairs)))


def _pair(pair: RunPair) -> Cells:
    return (
        one_line(pair.second, 60),
        pair.verdict,
        f"{points(pair.lenient)}, {p_text(pair.lenient_p)}",
        f"{points(pair.strict)}, {p_text(pair.strict_p)}",
        f"{pair.lenient.won} and {pair.lenient.lost} of {pair.lenient.num_items}",
    )


def _settings(comparison: Comparison, names: Sequence[str]) -> PageTable:
    rows = tuple(
        (one_line(key, 60), *("unset" if value is UNSET else one_line(value, 200) for value in values))
        for key, values in comparison.differences.items()
    )
    return PageTable("Settings that differ", "", ("key", *names), rows)


def _charts(comparison: Comparison, names: Sequence[str]) -> Iterator[Chart]:
    curves = [learning_curve(record) for record in comparison.records]
    for along in _ALONG:
        yield _chart("Held-out accuracy", "Greedy, in any format.", along, names, curves, lambda point: point.pass_at_1)
    few = [thinned(curve) for curve in curves]
    for along in _ALONG:
        note = "Of the completions sampled for training."
        yield _chart("Accuracy in training", note, along, names, few, lambda point: point.accuracy, are_points=False)


def _chart(
    title: str,
    note: str,
    along: str,
    names: Sequence[str],
    curves: Sequence[Sequence[CurvePoint]],
    value: _Value,
    *,
    are_points: bool = True,
) -> Chart:
    """Returns one line for each run, over the x values of all of them."""
    place, remark = _ALONG[along]
    lines = [
        {x: y for point in curve if (x := place(point)) is not None and (y := value(point)) is not None}
        for curve in curves
    ]
    xs = tuple(sorted({x for line in lines for x in line}))
    series = tuple(
        Series(name, tuple(rounded(line.get(x)) for x in xs), are_points)
        for name, line in zip(names, lines, strict=True)
    )
    return Chart(f"{title} by {along}", note + remark, "percent", xs, series, along=along)
