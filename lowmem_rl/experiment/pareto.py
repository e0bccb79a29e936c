"""`pareto.svg`: what each arm reaches by the memory it takes, as a picture of its own, for a README or a talk."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10, sqrt
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.trade_off import ArmPlace, area_share, not_dominated, peak_gib, places_of
from lowmem_rl.experiment.verdicts import Verdicts
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.html import write_page

_WIDTH, _TOP, _PLOT_HEIGHT, _ROW = 760, 64, 260, 36
"""Pixels: of the picture, above a plot, of a plot, of an arm in the legend."""
_LEFT, _RIGHT, _LEGEND, _BELOW = 64, 430, 456, 48
_LARGEST, _SMALLEST = 14.0, 3.0
"""Radius of the slowest arm's point: areas are in proportion to the minutes of a run."""
_ROOM = 0.1
"""Share of an axis that is free at each end, for large points."""
_TICKS = 6
_COLOURS = 6
_STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.ground { fill: #ffffff; } text { fill: #1b1f24; } .soft { fill: #59636e; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #d5d9de; } .best { stroke: #59636e; fill: none; stroke-width: 1.5; } .hollow { fill-opacity: 0; }
circle { stroke-width: 1.5; fill-opacity: .75; }
.c0 { fill: #0b62c4; stroke: #0b62c4; } .c1 { fill: #b8500a; stroke: #b8500a; } .c2 { fill: #127a4b; stroke: #127a4b; }
.c3 { fill: #8a3ab9; stroke: #8a3ab9; } .c4 { fill: #9b6a00; stroke: #9b6a00; } .c5 { fill: #b3246b; stroke: #b3246b; }
@media (prefers-color-scheme: dark) {
.ground { fill: #14171b; } text { fill: #e6e9ed; } .soft { fill: #9aa4af; } .grid { stroke: #363c44; }
.best { stroke: #9aa4af; }
.c0 { fill: #6cb0ff; stroke: #6cb0ff; } .c1 { fill: #ff9d57; stroke: #ff9d57; } .c2 { fill: #4cc98c; stroke: #4cc98c; }
.c3 { fill: #cf9bff; stroke: #cf9bff; } .c4 { fill: #e0b84c; stroke: #e0b84c; } .c5 { fill: #ff86bd; stroke: #ff86bd; }
}
"""
"""The page's colours, in the theme of who looks at it."""
_NOTE = "A point's area is in proportion to the minutes of a run. The line joins arms that none beats with less memory."


def write_pareto(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts, target: Path) -> Path | None:
    """Writes the picture and returns where it is; None if no arm has a place yet. Raises `RunDirError`."""
    text = render_pareto(study, outcomes, verdicts)
    return write_page(text, target) if text else None


def render_pareto(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts) -> str:
    """Returns the picture, one plot a task below the other; empty if no arm of any has a place."""
    found = {
        task: places
        for task in study.tasks
        if (places := places_of(verdicts.of(task), [one for one in outcomes if one.task == task], peak_gib))
    }
    if not found:
        return ""
    name = one_line(study.name, 60)
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    svg.set("aria-label", f"{name}: {study.metric} by peak memory, a point an arm")
    SubElement(svg, "style").text = _STYLE
    SubElement(svg, "rect", {"class": "ground"}, width="100%", height="100%")
    height = 0
    for task, places in found.items():
        title = f"{name}, {task}" if len(study.tasks) > 1 else name
        panel = SubElement(svg, "g", transform=f"translate(0 {height})")
        _draw(panel, f"{title}: {study.metric} by memory", study.metric == "reward", places)
        height += _TOP + max(_PLOT_HEIGHT + _BELOW, _ROW * len(places))
    svg.attrib |= {"viewBox": f"0 0 {_WIDTH} {height}", "width": str(_WIDTH), "height": str(height)}
    return tostring(svg, "unicode") + "\n"


def _draw(panel: Element, title: str, is_reward: bool, places: Mapping[str, ArmPlace]) -> None:
    _text(panel, 16, 24, title, "title")
    _text(panel, 16, 44, _NOTE, "soft")
    xs = _Axis([place.cost for place in places.values()], _LEFT, _RIGHT)
    ys = _Axis([place.value for place in places.values()], _TOP + _PLOT_HEIGHT, _TOP)
    _draw_axes(panel, xs, ys, is_reward)
    best = not_dominated([(place.cost, place.value) for place in places.values()])
    points = " ".join(f"{xs.at(cost):.1f},{ys.at(value):.1f}" for cost, value in best.items())
    SubElement(panel, "polyline", {"class": "best"}, points=points)
    # Small points are drawn last, on top of large ones.
    order = sorted(enumerate(places.items()), key=lambda one: -one[1][1].minutes)
    for number, (arm, place) in order:
        radius = max(_SMALLEST, _LARGEST * sqrt(area_share(place, places)))
        point = _point(panel, number, xs.at(place.cost), ys.at(place.value), radius)
        SubElement(point, "title").text = arm
    for number, (arm, place) in enumerate(places.items()):
        y = _TOP + _ROW * number
        _point(panel, number, _LEGEND, y, 5)
        facts = f"{_value(place.value, is_reward)}, {place.cost:.2f} GiB, {place.minutes:.3g} min"
        _text(panel, _LEGEND + 14, y + 4, one_line(arm, 38))
        _text(panel, _LEGEND + 14, y + 20, facts, "soft")


class _Axis:
    """Where values are drawn, between two pixels, with some room at both ends."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        least, most = min(values), max(values)
        room = _ROOM * (most - least) or 0.1 * abs(most) or 1.0
        self.low, self.high, self._first, self._last = least - room, most + room, first, last

    def at(self, value: float) -> float:
        return self._first + (value - self.low) / (self.high - self.low) * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Returns round values on the axis: multiples of 1, 2 or 5 times a power of ten."""
        span = self.high - self.low
        unit = 10.0 ** floor(log10(span / _TICKS))
        step = next(unit * times for times in (1, 2, 5, 10) if span / (unit * times) <= _TICKS)
        return [step * number for number in range(ceil(self.low / step), floor(self.high / step) + 1)]


def _draw_axes(panel: Element, xs: _Axis, ys: _Axis, is_reward: bool) -> None:
    bottom = _TOP + _PLOT_HEIGHT
    for value in xs.ticks():
        _line(panel, xs.at(value), _TOP, xs.at(value), bottom)
        _text(panel, xs.at(value), bottom + 16, f"{value:.4g}", "soft", "middle")
    for value in ys.ticks():
        _line(panel, _LEFT, ys.at(value), _RIGHT, ys.at(value))
        _text(panel, _LEFT - 8, ys.at(value) + 4, _value(value, is_reward), "soft", "end")
    _text(panel, (_LEFT + _RIGHT) / 2, bottom + 34, "peak memory in GiB", "soft", "middle")


def _value(value: float, is_reward: bool) -> str:
    return f"{value:.4g}" if is_reward else f"{100 * value:.3g} %"


def _line(panel: Element, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(panel, "line", {"class": "grid"} | {name: f"{end:.1f}" for name, end in ends.items()})


def _point(panel: Element, number: int, x: float, y: float, radius: float) -> Element:
    """Draws a point; colours repeat after six, hollow then, as on the page."""
    look = f"c{number % _COLOURS}" + ("" if number < _COLOURS else " hollow")
    return SubElement(panel, "circle", {"class": look}, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}")


def _text(panel: Element, x: float, y: float, text: str, look: str = "", anchor: str = "start") -> None:
    about = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor} | ({"class": look} if look else {})
    SubElement(panel, "text", about).text = text
