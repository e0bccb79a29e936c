"""The card's own generator, separate from the host's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.rehearsal.card.state import STATE


def seeded(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Calls `function` with the card's random numbers."""
    host = torch.get_rng_state()
    torch.set_rng_state(STATE.random_state)
    try:
        return function(*args, **kwargs)
    finally:
        STATE.random_state = torch.get_rng_state()
        torch.set_rng_state(host)


def get_rng_state(device: Any = "cuda") -> torch.Tensor:
    """Replaces `torch.cuda.get_rng_state`."""
    return STATE.random_state.clone()


def set_rng_state(new_state: torch.Tensor, device: Any = "cuda") -> None:
    """Replaces `torch.cuda.set_rng_state`. Raises `TypeError` for a state on the card, as torch does."""
    if new_state.is_cuda:
        raise TypeError("RNG state must be a torch.ByteTensor")
    STATE.random_state = new_state.clone()


def manual_seed(seed: int) -> None:
    """Replaces `torch.cuda.manual_seed`."""
    host = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    STATE.random_state = torch.get_rng_state()
    torch.set_rng_state(host)
