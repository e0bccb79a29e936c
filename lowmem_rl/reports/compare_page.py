"""A comparison of runs as a page: who learnt more, how they got there, and what they were set to differently."""

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

ALONG: dict[str, Callable[[CurvePoint], float | None]] = {
    "step": lambda point: point.step,
    "tokens": lambda point: point.tokens,
    "minutes": lambda point: round(point.seconds / 60, 4),
}
NOTES = {"step": "", "tokens": " Prompts and completions together.", "minutes": " Evaluations are not counted."}


def write_comparison(told: Comparison, out: Path) -> Path:
    """Writes the page and returns where it is. Raises `RunDirError`."""
    return write_page(render_comparison(told), out)


def render_comparison(told: Comparison) -> str:
    """Returns the page."""
    names = [one_line(name, 60) for name in told.names]
    tables = [_results(told, names), _pairs(told), _settings(told, names)]
    return fill(
        "compare",
        followed=False,
        title=" · ".join(names),
        charts=[asdict(chart) for chart in _charts(told, names)],
        headline=headline(told),
        tables=[table for table in tables if table.rows],
        same=not told.differences,
    )


def headline(told: Comparison) -> str:
    """Returns who is better than the first, in a line."""
    better, worse = (
        [one_line(pair.second, 40) for pair in told.pairs if pair.is_distinguishable and (pair.lenient.gain > 0) == up]
        for up in (True, False)
    )
    found = [f"{verb} than {one_line(told.names[0], 40)}: {', '.join(runs)}" for verb, runs in
             (("Better", better), ("Worse", worse)) if runs]  # fmt: skip
    return "; ".join(found) or "Not distinguishable"


def _results(told: Comparison, names: Sequence[str]) -> PageTable:
    rows = tuple(
        (
            name,
            one_line(result["step"], 12),
            one_line(result.get("num_examples", "-"), 12),
            share(result, "pass_at_1"),
            share(result, "strict_pass_at_1"),
        )
        for name, result in zip(names, told.results, strict=True)
    )
    first = told.evaluations[0].result
    note = f"Each run's last evaluation on {one_line(first.get('task'), 60)}, greedy, with 95 % intervals."
    return PageTable("Results", note, ("run", "step", "items", "answer anywhere", "asked form"), rows)


def _pairs(told: Comparison) -> PageTable:
    adjusted = f" P-values are adjusted for {len(told.pairs)} comparisons." if len(told.pairs) > 1 else ""
    note = f"The same items, paired; a difference counts where chance alone makes it in less than one of 20.{adjusted}"
    head = (f"against {one_line(told.names[0], 40)}", "", "answer anywhere", "asked form", "items won and lost")
    return PageTable("Against the first", note, head, tuple(map(_pair, told.pairs)))


def _pair(pair: RunPair) -> Cells:
    direction = "better" if pair.lenient.gain > 0 else "worse"
    return (
        one_line(pair.second, 60),
        direction if pair.is_distinguishable else "not distinguishable",
        f"{points(pair.lenient)}, {p_text(pair.lenient_p)}",
        f"{points(pair.strict)}, {p_text(pair.strict_p)}",
        f"{pair.lenient.won} and {pair.lenient.lost} of {pair.lenient.num_items}",
    )


def _settings(told: Comparison, names: Sequence[str]) -> PageTable:
    rows = tuple(
        (one_line(key, 60), *("unset" if value is UNSET else one_line(value, 200) for value in values))
        for key, values in told.differences.items()
    )
    return PageTable("Settings that differ", "", ("key", *names), rows)


def _charts(told: Comparison, names: Sequence[str]) -> Iterator[Chart]:
    curves = [learning_curve(record) for record in told.records]
    for along in ALONG:
        note = f"Greedy, the answer anywhere.{NOTES[along]}"
        yield _chart("Held-out accuracy", note, along, names, curves, lambda point: point.pass_at_1, are_points=True)
    for along in ALONG:
        note = f"Of the completions sampled to learn from.{NOTES[along]}"
        yield _chart("Accuracy in training", note, along, names, curves, lambda point: point.accuracy)


def _chart(
    title: str,
    note: str,
    along: str,
    names: Sequence[str],
    curves: Sequence[Sequence[CurvePoint]],
    value: Callable[[CurvePoint], float | None],
    *,
    are_points: bool = False,
) -> Chart:
    """Returns one line a run, over the places of all of them."""
    place = ALONG[along]
    found = [
        {x: value(point) for point in (curve if are_points else thinned(curve)) if (x := place(point)) is not None}
        for curve in curves
    ]
    drawn = [{x: y for x, y in line.items() if y is not None} for line in found]
    xs = tuple(sorted({x for line in drawn for x in line}))
    series = tuple(
        Series(name, tuple(rounded(line.get(x)) for x in xs), are_points)
        for name, line in zip(names, drawn, strict=True)
    )
    return Chart(f"{title} by {along}", note, "percent", xs, series, along=along)
