"""SlimFit's layer freezing (arXiv 2305.18513, section 3.1): the matrices that moved least rest, the others learn.

The distance of a unit, one matrix, is what a step moves it by, over its size. It is measured only while the unit
learns: one that rests keeps its last distance, and learns again once the others have slowed down below it.
"""

from collections.abc import Mapping, Sequence
from random import Random

UNVISITED = 1e10
"""The distance of a unit that has not learned yet (the authors' code): above any that is measured."""
EPSILON = 1e-6
"""Added to the mean size of a number: the mean of |dW / W| over numbers, the authors' distance, has no bound near 0."""


def first_distances(units: Sequence[str], seed: int) -> dict[str, float]:
    """Returns the distances before the first step: each unit once, in a random order, before any comes again."""
    order = Random(f"{seed}/trainable/slimfit").sample(range(len(units)), len(units))
    return {unit: UNVISITED + place for unit, place in zip(units, order, strict=True)}


def learning_units(distances: Mapping[str, float], freeze_rate: float) -> tuple[str, ...]:
    """Returns the units that learn, in the order of `distances`: all but the share with the smallest; at least one."""
    count = max(1, round(len(distances) * (1 - freeze_rate)))
    farthest = set(sorted(distances, key=lambda unit: distances[unit], reverse=True)[:count])
    return tuple(unit for unit in distances if unit in farthest)
