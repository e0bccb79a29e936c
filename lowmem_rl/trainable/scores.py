"""Scores of decoder layers, on plain numbers: higher is chosen first."""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import fmean, quantiles

Matrix = tuple[int, str]
"""A decoder layer and the name of one of its matrices, as (3, "q_proj")."""

_IQR_OF_SIGMA = 1.349
"""Interquartile range of a normal distribution, over its standard deviation."""


def sums_by_layer(values: Mapping[Matrix, float]) -> dict[int, float]:
    """Returns each layer's sum over its matrices."""
    sums: dict[int, float] = {}
    for (layer, _), value in values.items():
        sums[layer] = sums.get(layer, 0.0) + value
    return sums


def norms_by_layer(squared: Mapping[Matrix, float]) -> dict[int, float]:
    """Returns each layer's norm from the squared norms of its matrices."""
    return {layer: sqrt(value) for layer, value in sums_by_layer(squared).items()}


def relative(norms: Mapping[int, float], of_weights: Mapping[int, float]) -> dict[int, float]:
    """Returns gradient norms over weight norms (relative gradient norm; Auto-RGN, arXiv 2210.11466), 0 over 0."""
    return {layer: norm / of_weights[layer] if of_weights[layer] else 0.0 for layer, norm in norms.items()}


def highest(scores: Mapping[int, float], count: int) -> tuple[int, ...]:
    """Returns the `count` layers with the highest scores, ascending; of equal ones the lower layers."""
    return tuple(sorted(sorted(scores, key=lambda layer: (-scores[layer], layer))[:count]))


def signal_to_noise(singular_values: Sequence[float], rows: int, columns: int) -> float:
    """Returns the SNR of a matrix from its singular values (Spectrum, arXiv 2406.06623, section 3).

    Noise of standard deviation sigma has singular values up to sigma (1 + sqrt(beta)), beta = the shorter side over the
    longer one (Marchenko and Pastur, 1967); sigma comes from the interquartile range of the values, which the few that
    are signal hardly move. The sum above over the sum below, over the largest value. Without a value below, the
    smallest one counts as noise; 0 for a matrix of zeros.
    """
    values = sorted(singular_values)
    if not values or values[-1] <= 0:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0.0, 0.0, 0.0)
    threshold = (high - low) / _IQR_OF_SIGMA * (1 + sqrt(min(rows, columns) / max(rows, columns)))
    noise = sum(value for value in values if value <= threshold) or max(values[0], values[-1] * 1e-12)
    return sum(value for value in values if value > threshold) / noise / values[-1]


def mean_by_kind(values: Mapping[Matrix, float]) -> dict[int, float]:
    """Returns each layer's mean over its matrices, each over the mean of its kind: no kind outweighs the others."""
    means = {kind: fmean(v for (_, name), v in values.items() if name == kind) for kind in _kinds(values)}
    scaled = {key: value / means[key[1]] if means[key[1]] else 0.0 for key, value in values.items()}
    layers = sorted({layer for layer, _ in values})
    return {layer: fmean(value for key, value in scaled.items() if key[0] == layer) for layer in layers}


def _kinds(values: Iterable[Matrix]) -> set[str]:
    return {name for _, name in values}
