"""The ratios of a record as an SVG picture, drawn with matplotlib."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lowmem_rl.errors import SetupError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "trl": "TRL, defaults",
    "trl_fair": "TRL, fair",
    "trl_continuous": "TRL, continuous batching",
    "unsloth": "Unsloth, defaults",
    "unsloth_fair": "Unsloth, fair",
}
_SETS = {
    "skewed": ("skewed lengths, dead groups", "#2563eb"),
    "equal": ("equal lengths, none dead: the worst case", "#94a3b8"),
}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "bench step", "font.size": 10}
"""Text stays text, and a record always gives the same file."""
_BAR = 0.38
"""Height of a bar; the distance of two arms is 1."""


def figure_class() -> "type[Figure]":
    """Returns matplotlib's figure. Raises `SetupError` if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which needs a screen and keeps state
    except ImportError as error:
        raise SetupError(
            "The plot needs matplotlib, which is not installed.", hint="uv pip install 'lowmem-rl[slides]'"
        ) from error
    return Figure


def draw(record: Mapping[str, Any]) -> str:
    """Returns the SVG of a record's replays: bars are medians over rounds, lines their 95 % intervals.

    Raises `SetupError` if matplotlib is not installed.
    """
    replay, arms = record["replay"], list(record["ratios"])
    height = 1.1 + len(replay) * (0.7 + 0.5 * len(arms))
    figure = figure_class()(figsize=(7.6, height), facecolor="white", layout="constrained")
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure.suptitle("One GRPO step: how many times as long as lowmem-rl", weight="bold", fontsize=13)
        panels = figure.subplots(len(replay), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (precision, sets) in zip(panels, replay.items(), strict=True):
            title = {"preset": f"{record['preset']} as shipped", "fp32": "float32, not quantised"}[precision]
            axes.set_title(title, loc="left", weight="bold", fontsize=11)
            _draw_panel(axes, sets, arms)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _draw_panel(axes: "Axes", sets: Mapping[str, Any], arms: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (name, found) in enumerate(sets.items()):
        label, colour = _SETS[name]
        ratios = [found["ratios"][arm][found["clock"]] for arm in arms]
        medians = [ratio["median"] for ratio in ratios]
        errors = [[r["median"] - r["low"] for r in ratios], [r["high"] - r["median"] for r in ratios]]
        places = [place + _BAR * (number - (len(sets) - 1) / 2) for place in range(len(arms))]
        bars = axes.barh(places, medians, 0.9 * _BAR, xerr=errors, color=colour, label=label, ecolor="#0f172a")
        axes.bar_label(bars, fmt="%.2f×", padding=6)
    axes.set_yticks(range(len(arms)), [_LABELS.get(arm, arm) for arm in arms])
    axes.invert_yaxis()
    axes.axvline(1, color="#0f172a", linewidth=0.8, zorder=0)  # lowmem-rl itself
    axes.xaxis.set_major_formatter("{x:.0f}×")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelbottom=True, length=0)
    axes.margins(x=0.1)
    axes.grid(axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
