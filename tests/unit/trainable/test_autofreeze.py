"""AutoFreeze on plain numbers: what changes least stops, from the bottom up, for good, and never all of it."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.trainable.autofreeze import changes, percentile_of, shares, still_learning

norms = st.dictionaries(st.integers(0, 40), st.floats(0, 1e9), min_size=1, max_size=12)


def test_the_first_layer_that_changes_as_much_as_the_median_is_the_lowest_that_learns_on() -> None:
    eta = changes({0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0}, {0: 1.1, 1: 2.1, 2: 6.0, 3: 8.0})
    assert eta == pytest.approx({0: 0.1, 1: 0.05, 2: 0.5, 3: 0.0})
    assert still_learning(eta, 50) == (0, 1, 2, 3)  # the median is between 0.05 and 0.1
    assert still_learning(eta, 75) == (2, 3)
    assert still_learning(eta, 100) == (2, 3)


def test_a_layer_above_that_changes_little_does_not_stop_before_those_below() -> None:
    assert still_learning({4: 0.9, 5: 0.0, 6: 0.0}, 50) == (4, 5, 6)


def test_shares_do_not_see_a_scale_that_all_layers_have_in_common() -> None:
    before, now = {0: 1.0, 1: 3.0}, {0: 5.0, 1: 15.0}
    assert changes(before, now) == {0: 4.0, 1: 4.0}
    assert changes(shares(before, now), shares(now, now)) == {0: 0.0, 1: 0.0}


def test_shares_are_of_the_layers_that_still_learn() -> None:
    assert shares({0: 96.0, 1: 1.0, 2: 3.0}, {1: 0.0, 2: 0.0}) == {1: 0.25, 2: 0.75}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0, 100))
def test_a_percentile_is_numpys(values: list[float], percentile: float) -> None:
    import numpy

    assert percentile_of(values, percentile) == pytest.approx(numpy.percentile(values, percentile), rel=1e-9, abs=1e-6)


@given(norms, st.data(), st.floats(0.1, 100))
def test_what_remains_is_the_top_of_what_was_there_and_never_nothing(
    before: dict[int, float], data: st.DataObject, percentile: float
) -> None:
    now = {layer: data.draw(st.floats(0, 1e9)) for layer in before}
    eta = changes(before, now)
    remaining = still_learning(eta, percentile)
    assert remaining
    assert remaining == tuple(layer for layer in sorted(before) if layer >= remaining[0])
    json.dumps({"eta": eta, "share_eta": changes(shares(before, now), shares(now, now))}, allow_nan=False)


def run_on(state: dict[str, Any], gradients: list[dict[int, float]]) -> list[tuple[int, ...]]:
    """Returns the layers after each interval, from a state that was saved after an earlier one."""
    learning, before, found = tuple(state["learning"]), state["norms"], []
    for interval in gradients:
        now = {layer: interval[layer] for layer in learning}
        learning = still_learning(changes(before, now), 50) if before else learning
        before = now
        found.append(learning)
    state |= {"learning": learning, "norms": before}
    return found


@given(st.lists(st.fixed_dictionaries({layer: st.floats(0.1, 10) for layer in range(6)}), min_size=2), st.data())
def test_a_schedule_that_is_resumed_anywhere_has_the_same_tail(
    gradients: list[dict[int, float]], data: st.DataObject
) -> None:
    start = {"learning": tuple(range(6)), "norms": {}}
    whole = run_on(dict(start), gradients)
    resumed, state = data.draw(st.integers(0, len(gradients))), dict(start)
    run_on(state, gradients[:resumed])
    assert run_on(state, gradients[resumed:]) == whole[resumed:]
    assert all(set(after) <= set(then) for then, after in pairwise(whole))
