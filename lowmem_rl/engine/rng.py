"""The states of all global random generators: of Python, NumPy, torch's CPU generator and, on a GPU, the card's own.

Reading the card's generator waits for nothing: its seed and offset are host memory (ATen/cuda/CUDAGeneratorImpl).
"""

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch


def rng_states() -> dict[str, Any]:
    """Returns the states, as transformers writes them."""
    states = {"python": random.getstate(), "numpy": numpy.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: Mapping[str, Any]) -> None:
    """Restores states that `rng_states` returned."""
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@contextlib.contextmanager
def preserved_rng() -> Iterator[None]:
    """Restores the states after the block, which so draws no random number from training."""
    states = rng_states()
    try:
        yield
    finally:
        restore_rng(states)
