"""What is used of the PEFT model that Unsloth loads, and the decoder layer in the name of one of its weights."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class ModelLike(Protocol):
    """Frozen weights with LoRA layers in them."""

    training: bool
    device: "torch.device"
    config: Any
    generation_config: Any
    peft_config: dict[str, Any]
    generate: Callable[..., Any]

    def train(self) -> Any: ...
    def eval(self) -> Any: ...
    def get_base_model(self) -> Any: ...
    def disable_adapter(self) -> contextlib.AbstractContextManager[None]: ...
    def modules(self) -> Iterator[Any]: ...
    def named_modules(self) -> Iterator[tuple[str, Any]]: ...
    def parameters(self) -> Iterator["torch.nn.Parameter"]: ...
    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, "torch.nn.Parameter"]]: ...
    def named_buffers(self) -> Iterator[tuple[str, "torch.Tensor"]]: ...
    def save_pretrained(self, path: Path) -> Any: ...


def layer_of(name: str) -> int | None:
    """Returns the decoder layer that a weight's name belongs to, None if to none."""
    found = re.search(r"\.layers\.([0-9]+)\.", name)
    return int(found[1]) if found else None
