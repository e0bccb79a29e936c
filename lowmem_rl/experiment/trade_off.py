"""What each arm costs and what it reaches: a place an arm, and which of them no other beats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.verdicts import ArmVerdict
from lowmem_rl.units import GIB

Cost = Callable[[Outcome], float | None]
"""What one run costs, None if that is not known."""


@dataclass(frozen=True, slots=True)
class ArmPlace:
    """An arm on one task: the median cost and minutes of its runs that have ended, and its metric over seeds."""

    cost: float
    value: float
    minutes: float


def peak_gib(one: Outcome) -> float | None:
    """Returns the peak memory of a run, in GiB."""
    return None if one.peak_bytes is None else one.peak_bytes / GIB


def places_of(verdicts: Sequence[ArmVerdict], outcomes: Sequence[Outcome], cost: Cost) -> dict[str, ArmPlace]:
    """Returns the arms of which cost, metric and minutes are known, of verdicts and outcomes of one task.

    The metric is that of the verdict, in which a run that failed counts, too.
    """
    found = {}
    for verdict in verdicts:
        runs = [one for one in outcomes if one.arm == verdict.arm and one.status in ("done", "failed")]
        costs = [known for one in runs if (known := cost(one)) is not None]
        minutes = [one.minutes for one in runs if one.minutes is not None]
        if costs and minutes and verdict.value is not None:
            found[verdict.arm] = ArmPlace(median(costs), verdict.value, median(minutes))
    return found


def area_share(place: ArmPlace, places: Mapping[str, ArmPlace]) -> float:
    """Returns the minutes of an arm as a share of the slowest one's: areas are in proportion to them."""
    slowest = max(one.minutes for one in places.values())
    return place.minutes / slowest if slowest else 1.0


def not_dominated(points: Sequence[tuple[float, float]]) -> dict[float, float]:
    """Returns the (cost, value) points that no other beats at the same or a lower cost, by ascending cost."""
    best: dict[float, float] = {}
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > max(best.values()):
            best[cost] = value
    return best
