"""A run on one slide: a 16:9 picture for a talk, with the start of the page."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from lowmem_rl.errors import RunDirError, SetupError
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.reports.sections.charts import Chart, charts_of
from lowmem_rl.reports.sections.verdict import verdict_of
from lowmem_rl.storage.run_dir import RunDir

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = ("Accuracy", "Reward", "Informative groups", "Completion length")
_COLOURS = ("#0b62c4", "#b8500a", "#127a4b", "#8a3ab9", "#9b6a00", "#b3246b")
"""Those of the page in its light theme."""
_INCHES, _DOTS_PER_INCH = (16, 9), 120
_COLUMNS = 150
"""Characters of the paragraph on a line."""


def write_slide(path: Path, out: Path | None = None) -> Path:
    """Draws a run directory, into report.png there unless `out` is set. Raises `RunDirError`, `SetupError`."""
    target = out or RunDir(path).report.with_suffix(".png")
    figure = _draw(read_record(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, format="png", dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise RunDirError(f"{target} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    return target


def _draw(record: RunRecord) -> "Figure":
    try:
        # Only the figure, not pyplot: it needs no screen and leaves no global state.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SetupError(
            "A slide needs matplotlib, which is not installed.", hint="uv pip install 'lowmem-rl[slides]'"
        ) from error
    figure = Figure(figsize=_INCHES, facecolor="white")
    verdict = verdict_of(record)
    # A dollar sign would start a formula.
    title = f"{one_line(record.name, 40)}: {verdict.headline}".replace("$", r"\$")
    figure.text(0.04, 0.94, title, fontsize=26, weight="bold", va="center")
    paragraph = fill(one_line(verdict.paragraph, 600), _COLUMNS).replace("$", r"\$")
    figure.text(0.04, 0.905, paragraph, fontsize=13, va="top", linespacing=1.4)
    charts = {chart.title: chart for chart in charts_of(record)}
    wanted = [charts[title] for title in _SHOWN if title in charts]
    for place, chart in enumerate(wanted, 1):
        _draw_chart(figure.add_subplot(2, 2, place), chart)
    figure.subplots_adjust(left=0.06, right=0.97, top=0.74, bottom=0.07, hspace=0.42, wspace=0.14)
    return figure


def _draw_chart(axes: "Axes", chart: Chart) -> None:
    for series, colour in zip(chart.series, _COLOURS * len(chart.series), strict=False):
        found = [(step, v) for step, v in zip(chart.xs, series.values, strict=True) if v is not None]
        form = "o--" if series.are_points or len(found) == 1 else "-"
        label = series.label.replace("$", r"\$")
        xs, values = [step for step, _ in found], [value for _, value in found]
        axes.plot(xs, values, form, label=label, color=colour, linewidth=1.6, markersize=5)
    for whisker in chart.whiskers:
        axes.vlines(whisker.x, whisker.low, whisker.high, color=_COLOURS[whisker.series], linewidth=1.6)
    axes.set_title(chart.title, loc="left", fontsize=15, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_xlabel(chart.along, fontsize=11)
    if chart.unit == "percent":
        axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:.0f} %")
        axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=11)
