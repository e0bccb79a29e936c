"""FreezeOut (arXiv 1706.04983): each layer's learning rate falls to 0 by a cosine of its own, the first layer's first.

Layer i of L stops after t_i = T (t_0 + (1 - t_0) i / (L - 1)) of T steps, t_0 = 0.5; until then its rate is
(1 + cos(pi t / t_i)) / 2 of the run's.
"""

from math import ceil, cos, pi

FIRST_STOPS_AT = 0.5
"""t_0, as a share of the run: the paper's experiments begin there."""


def stops(count: int, steps: int, rollout_steps: int) -> tuple[int, ...]:
    """Returns after how many of `steps` each of `count` layers stops, the first layer first.

    Rounded up to whole rollouts, which feed `rollout_steps` each: none spans a change.
    """
    shares = (FIRST_STOPS_AT + (1 - FIRST_STOPS_AT) * i / max(count - 1, 1) for i in range(count - 1))
    return tuple(ceil(steps * share / rollout_steps) * rollout_steps for share in (*shares, 1.0))


def rate(done: int, stop: int) -> float:
    """Returns the share of the run's learning rate, after `done` steps, of a layer that stops after `stop`."""
    return (1 + cos(pi * min(done / stop, 1))) / 2
