"""Tensors in lists and tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def mapped(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Returns a result of an operation with `function` of each of its tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(mapped(item, function) for item in value)
    return value
