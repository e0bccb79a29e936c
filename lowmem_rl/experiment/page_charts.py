"""The charts of a study: the metric against memory and time, and curves over seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.study import Match, Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trade_off import ArmPlace, Cost, area_share, not_dominated, peak_gib, places_of
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.experiment.verdicts import Verdicts
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.charts import Band, Chart, Series, Unit, rounded, thinned
from lowmem_rl.reports.sections.curves import CurvePoint, learning_curve
from lowmem_rl.storage.run_dir import RunDir

_LARGEST = 28.0
"""Pixels across the point of the slowest arm: areas are in proportion to the minutes of a run."""
_SMALLEST = 6.0
_FEW = 10
"""Fewer values than that are evaluations, and are drawn as points."""
_COSTS: dict[str, Cost] = {"peak GiB": peak_gib, "minutes a run": lambda one: one.minutes}
_CURVES: tuple[tuple[str, str, Unit, Callable[[CurvePoint], float | None]], ...] = (
    ("Reward", "Of the sampled completions.", "number", lambda point: point.reward),
    ("Held-out accuracy", "Greedy, in any format.", "percent", lambda point: point.pass_at_1),
)

_PLACES: dict[Match, tuple[str, Callable[[CurvePoint], float | None]]] = {
    "steps": ("step", lambda point: point.step),
    "tokens": ("tokens", lambda point: point.tokens),
    "minutes": ("minutes", lambda point: point.seconds / 60),
}
"""By what arms get equally much of, the name and the value of a curve's x axis."""
_GRID = 100
"""Places at which curves along tokens or minutes are compared: no two runs have a step at the same."""

Curve = Mapping[float, float]
"""Values by step, or by tokens or minutes."""


def charts_of(study: Study, outcomes: Sequence[Outcome], verdicts: Verdicts, directory: StudyDir) -> list[Chart]:
    """Returns the charts that have values, task by task. Raises `RunDirError` for a damaged run."""
    return [
        chart
        for task in study.tasks
        for chart in _of_task(study, task, [one for one in outcomes if one.task == task], verdicts, directory)
        if chart.series
    ]


def _of_task(
    study: Study, task: str, outcomes: Sequence[Outcome], verdicts: Verdicts, directory: StudyDir
) -> Iterator[Chart]:
    prefix = f"{task}: " if len(study.tasks) > 1 else ""
    by_arm = {arm.name: [one for one in outcomes if one.arm == arm.name] for arm in study.arms}
    for along, cost in _COSTS.items():
        places = places_of(verdicts.of(task), outcomes, cost)
        yield _trade_off(study, f"{prefix}{study.metric} by {along}", places, along)
    points = {arm: [_points(one, directory) for one in runs] for arm, runs in by_arm.items()}
    along, place = _PLACES[study.match]
    for title, note, unit, value in _CURVES:
        curves = {arm: [_curve(run, place, value) for run in runs] for arm, runs in points.items()}
        if study.match != "steps":
            curves, note = on_grid(curves), f"{note} Linear between the points of a run."
        yield over_seeds(f"{prefix}{title}", note, unit, curves, along)


def _curve(
    run: Sequence[CurvePoint], place: Callable[[CurvePoint], float | None], value: Callable[[CurvePoint], float | None]
) -> Curve:
    return {x: y for point in run if (x := place(point)) is not None and (y := value(point)) is not None}


def on_grid(curves: Mapping[str, Sequence[Curve]]) -> dict[str, list[Curve]]:
    """Returns curves that have their values at the same places, evenly spaced, each as far as its run came."""
    from numpy import interp, linspace

    xs = [x for runs in curves.values() for run in runs for x in run]
    grid = [float(x) for x in linspace(min(xs), max(xs), _GRID)] if xs else []
    found: dict[str, list[Curve]] = {}
    for arm, runs in curves.items():
        known = [(sorted(run), run) for run in runs if run]
        found[arm] = [
            {
                x: float(interp(x, places, [run[place] for place in places]))
                for x in grid
                if places[0] <= x <= places[-1]
            }
            for places, run in known
        ]
    return found


def _points(outcome: Outcome, directory: StudyDir) -> Sequence[CurvePoint]:
    path = directory.path / Trial(outcome.task, outcome.arm, outcome.seed).place
    return thinned(learning_curve(read_record(path))) if RunDir(path).config.exists() else ()


def _trade_off(study: Study, title: str, places: Mapping[str, ArmPlace], along: str) -> Chart:
    """Returns a point an arm, and a line through those to which no other arm is preferable."""
    xs = tuple(sorted({place.cost for place in places.values()}))
    series = [
        Series(
            arm,
            tuple(rounded(place.value) if x == place.cost else None for x in xs),
            are_points=True,
            size=max(_SMALLEST, _LARGEST * sqrt(area_share(place, places))),
        )
        for arm, place in places.items()
    ]
    best = not_dominated([(place.cost, place.value) for place in places.values()])
    line = Series("no arm cheaper and better", tuple(rounded(best.get(x)) for x in xs), spans_gaps=True)
    note = "Means over seeds; a point's area is in proportion to the minutes of a run."
    unit: Unit = "number" if study.metric == "reward" else "percent"
    return Chart(
        title, note, unit, tuple(rounded(x) or 0.0 for x in xs), (*series, line) if series else (), along=along
    )


def over_seeds(title: str, note: str, unit: Unit, curves: Mapping[str, Sequence[Curve]], along: str = "step") -> Chart:
    """Returns the mean over an arm's seeds at each place, and a band from the lowest to the highest of them."""
    xs = tuple(sorted({place for runs in curves.values() for run in runs for place in run}))
    series, found = list[Series](), list[Band]()
    for arm, runs in curves.items():
        values = [[run[x] for run in runs if x in run] for x in xs]
        if any(values):
            ends = ((rounded(min(ys)), rounded(max(ys))) if len(ys) > 1 else (None, None) for ys in values)
            lows, highs = zip(*ends, strict=True)
            found.append(Band(len(series), lows, highs))
            means = tuple(rounded(fmean(ys)) if ys else None for ys in values)
            series.append(Series(arm, means, are_points=sum(mean is not None for mean in means) < _FEW))
    note += " Mean over seeds, and the lowest and the highest."
    places = xs if along == "step" else tuple(rounded(x) or 0.0 for x in xs)
    return Chart(title, note, unit, places, tuple(series), along=along, bands=tuple(found))
