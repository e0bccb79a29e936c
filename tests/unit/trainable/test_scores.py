"""Scores of layers: what they are of, what does not change them, and which layers they choose."""

from math import inf, sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lowmem_rl.trainable.scores import highest, mean_by_kind, norms_by_layer, relative, signal_to_noise

positive = st.floats(1e-3, 1e3)
scores = st.dictionaries(st.integers(0, 99), st.floats(0, 1e6), min_size=1)
matrices = st.dictionaries(st.tuples(st.integers(0, 5), st.sampled_from("qkvo")), positive, min_size=1)


@given(scores, st.integers(1, 99))
def test_the_highest_are_chosen_and_no_other_is_higher(found: dict[int, float], count: int) -> None:
    chosen = highest(found, count)
    assert len(chosen) == min(count, len(found))
    assert list(chosen) == sorted(set(chosen))
    others = [score for layer, score in found.items() if layer not in chosen]
    assert min(found[layer] for layer in chosen) >= max(others, default=-inf)


def test_of_equal_layers_the_lower_ones_are_chosen() -> None:
    assert highest({3: 1.0, 1: 1.0, 2: 1.0, 0: 0.5}, 2) == (1, 2)


@given(matrices)
def test_a_layers_norm_is_that_of_all_its_numbers(squared: dict[tuple[int, str], float]) -> None:
    norms = norms_by_layer(squared)
    assert norms.keys() == {layer for layer, _ in squared}
    assert sum(norm**2 for norm in norms.values()) == pytest.approx(sum(squared.values()))


@given(scores, positive)
def test_gradients_of_heavier_weights_count_less(norms: dict[int, float], weight: float) -> None:
    once, twice = (relative(norms, dict.fromkeys(norms, factor * weight)) for factor in (1, 2))
    assert twice == pytest.approx({layer: score / 2 for layer, score in once.items()})
    assert relative(norms, dict.fromkeys(norms, 0.0)) == dict.fromkeys(norms, 0.0)


@given(matrices, st.sampled_from("qkvo"), positive)
def test_no_kind_of_matrix_outweighs_the_others(found: dict[tuple[int, str], float], kind: str, factor: float) -> None:
    scaled = {key: value * (factor if key[1] == kind else 1.0) for key, value in found.items()}
    assert mean_by_kind(scaled) == pytest.approx(mean_by_kind(found))


@given(st.lists(positive, min_size=1, max_size=50), positive)
def test_the_signal_to_noise_ratio_falls_with_the_scale_and_is_finite(values: list[float], factor: float) -> None:
    """Over the largest value it has a unit: one over that of a weight."""
    found = signal_to_noise(values, len(values), 64)
    assert 0 <= found < inf
    scaled = signal_to_noise([factor * value for value in values], len(values), 64)
    # A value on the threshold may fall on either side of it.
    assume(all(abs(value / edge - 1) > 1e-9 for value in values if (edge := _threshold(values, 64))))
    assert scaled * factor == pytest.approx(found)


def _threshold(values: list[float], columns: int) -> float:
    import numpy as np

    low, high = np.percentile(values, [25, 75])
    beta = min(len(values), columns) / max(len(values), columns)
    return float((high - low) / 1.349 * (1 + sqrt(beta)))


def test_the_signal_to_noise_ratio_of_a_known_spectrum() -> None:
    """Quartiles 2 and 4: sigma = 2 / 1.349 = 1.4826; square, beta = 1: the threshold is 2.965."""
    assert signal_to_noise([1, 2, 3, 4, 5], 5, 5) == pytest.approx((3 + 4 + 5) / (1 + 2) / 5)
    # 5 x 20: beta = 1/4, the threshold is 2.224: the same values
    assert signal_to_noise([5, 4, 3, 2, 1], 5, 20) == pytest.approx((3 + 4 + 5) / (1 + 2) / 5)
    # a wider spread of noise: quartiles 1 and 5, threshold 4 / 1.349 * 2 = 5.93
    assert signal_to_noise([1, 1, 5, 5, 10], 5, 5) == pytest.approx(10 / 12 / 10)


def test_a_matrix_without_noise_or_of_zeros_has_a_finite_ratio() -> None:
    assert signal_to_noise([0.0, 0.0], 2, 2) == 0.0
    assert signal_to_noise([], 0, 0) == 0.0
    assert signal_to_noise([2.0, 2.0, 2.0], 3, 3) == pytest.approx(6 / 2 / 2)
