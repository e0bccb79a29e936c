"""How sure a difference is: against numbers worked out by hand."""

from math import inf

import pytest

from lowmem_rl.health.significance import MOST_CONFIDENT, confidence, errors_above, errors_between, shift


def test_two_windows_differ_by_welch():
    moved = shift([1.0, 3.0], [4.0, 6.0])  # variances of 2, each mean's 1: 3 / sqrt(2)
    assert (moved.before, moved.after, moved.change) == (2.0, 5.0, 3.0)
    assert moved.z == pytest.approx(2.1213, abs=1e-4)


def test_windows_without_noise_are_the_same_or_surely_apart():
    assert [shift([1.0, 1.0], [after] * 3).z for after in (0.0, 1.0, 2.0)] == [-inf, 0.0, inf]


def test_a_share_is_held_against_its_threshold():
    assert errors_above(0.75, 0.5, 16) == pytest.approx(2.0)  # 0.25 / sqrt(0.25 / 16)


def test_two_shares_are_pooled():
    assert errors_between(0.5, 16, 0.5, 80) == 0.0
    assert errors_between(0.0, 16, 0.0, 80) == 0.0
    assert errors_between(0.4, 16, 0.0, 80) == pytest.approx(-5.855, abs=0.001)  # pooled 1/15


def test_confidence_grows_with_the_evidence_and_stays_below_certainty():
    assert confidence(0.0, 1.0) == 0.5
    assert confidence(-3.0, 0.8) == pytest.approx(0.7989, abs=1e-4)
    assert confidence(inf, 1.0) == MOST_CONFIDENT
