"""SlimFit on plain numbers: each unit has a turn, then those that move most."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.trainable.slimfit import UNVISITED, first_distances, learning_units

UNITS = [f"{layer}.{name}" for layer in range(3) for name in ("q_proj", "v_proj", "up_proj", "down_proj")]
counts, rates = st.integers(1, 60), st.floats(0.01, 0.99)


def turns(distances: dict[str, float], freeze_rate: float, periods: int, first: int = 0) -> list[tuple[str, ...]]:
    """Returns what learns in each period; a unit's measured distance depends on itself and the period alone."""
    found = []
    for period in range(first, periods):
        found.append(learning_units(distances, freeze_rate))
        distances |= {unit: Random(f"{unit}/{period}").random() for unit in found[-1]}
    return found


@given(counts, rates, st.integers(0, 9))
def test_each_unit_learns_once_before_any_learns_again(count: int, freeze_rate: float, seed: int) -> None:
    units = [str(number) for number in range(count)]
    distances = first_distances(units, seed)
    size = len(learning_units(distances, freeze_rate))
    visited = [unit for turn in turns(distances, freeze_rate, count // size) for unit in turn]
    assert len(set(visited)) == len(visited) == count // size * size
    turns(distances, freeze_rate, -(-count // size), first=count // size)
    assert max(distances.values()) < UNVISITED


@pytest.mark.slow
@given(counts, rates, st.integers(0, 9), st.integers(0, 40))
def test_a_schedule_that_is_resumed_anywhere_has_the_same_tail(
    count: int, freeze_rate: float, seed: int, resumed: int
) -> None:
    distances = first_distances([str(number) for number in range(count)], seed)
    whole = turns(dict(distances), freeze_rate, 40)
    turns(distances, freeze_rate, resumed)
    assert turns(distances, freeze_rate, 40, first=resumed) == whole[resumed:]
    assert all(whole)


def test_the_share_that_moved_least_rests() -> None:
    distances = {unit: float(place) for place, unit in enumerate(UNITS)}
    assert learning_units(distances, 0.75) == tuple(UNITS[-3:])
    assert learning_units(distances, 0.99) == (UNITS[-1],)


def test_the_order_of_the_first_turns_is_the_seeds() -> None:
    orders = [first_distances(UNITS, seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert min(orders[0].values()) == pytest.approx(UNVISITED)
