"""AutoFreeze (arXiv 2102.01386): layers stop learning from the bottom up, once their gradients change least.

Delta_l is the L1 norm of layer l's gradient, summed as a vector over an interval of steps; eta_l is its change from one
interval to the next, as a share of what it was.
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor

_LEAST = 1e-30
"""Below any gradient's norm: a layer that had none has changed by a large number, and JSON has no infinity."""


def changes(before: Mapping[int, float], now: Mapping[int, float]) -> dict[int, float]:
    """Returns eta of each layer in `now`: |before - now| / before."""
    return {layer: abs(before[layer] - norm) / max(before[layer], _LEAST) for layer, norm in now.items()}


def shares(norms: Mapping[int, float], layers: Mapping[int, float]) -> dict[int, float]:
    """Returns the share of each of `layers` in the sum of their norms: free of the gradient's scale.

    In GRPO that scale follows the share of informative groups, which changes from interval to interval.
    """
    total = max(sum(norms[layer] for layer in layers), _LEAST)
    return {layer: norms[layer] / total for layer in layers}


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """Returns a percentile of values, linear between two of them, as numpy's default is."""
    ordered, place = sorted(values), (len(values) - 1) * percentile / 100
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (high - low) * (place - floor(place))


def still_learning(eta: Mapping[int, float], percentile: float) -> tuple[int, ...]:
    """Returns the layers that continue, ascending and never none: from the first whose eta reaches the percentile."""
    layers, threshold = sorted(eta), percentile_of(list(eta.values()), percentile)
    first = next(layer for layer in layers if eta[layer] >= threshold)
    return tuple(layer for layer in layers if layer >= first)
