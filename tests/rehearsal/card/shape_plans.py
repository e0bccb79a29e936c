"""What an operation makes of its arguments' shapes: found once on the meta device, then looked up.

A model's layers are equal, so nearly every operation has been seen before; to ask PyTorch's shape functions again
takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Key = tuple[Any, ...]
PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout)


class Unkeyed(Exception):
    """An argument of a kind that no key is made of."""


@dataclass(frozen=True, slots=True)
class Same:
    """The argument itself."""

    at: int


@dataclass(frozen=True, slots=True)
class View:
    """A view of an argument."""

    at: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OnHost:
    """A new tensor of the host."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Fresh:
    """A new tensor of the card. Those of one `group` share their storage."""

    group: int
    nbytes: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Several:
    """A list or tuple of results."""

    kind: type
    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """Arguments that are not tensors."""

    value: Any


class Arguments:
    """The tensors among an operation's arguments, and a key of all that decides the shapes of its results."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises `Unkeyed`."""
        self.tensors: list[torch.Tensor] = []
        self._storages: dict[int, int] = {}
        named = ((name, self._key_of(value)) for name, value in kwargs.items())
        self.key: Key = (func, torch.get_default_dtype(), *map(self._key_of, args), *named)

    def _key_of(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._key_of_tensor(value)
        if type(value) in PLAIN:
            return type(value), value  # 1, 1.0 and True are one key otherwise
        if type(value) in (list, tuple, torch.Size):
            return (type(value), *map(self._key_of, value))
        raise Unkeyed

    def _key_of_tensor(self, value: torch.Tensor) -> Key:
        if value.device.type == "meta":
            raise Unkeyed
        self.tensors.append(value)
        storage = value.untyped_storage()
        place = self._storages.setdefault(storage.data_ptr() or id(storage), len(self._storages))
        layout = value.size(), value.stride(), value.storage_offset()
        return (place, value.dtype, *layout, storage.nbytes(), value.is_cuda)

    def plan_of(self, result: Any) -> Any:
        """Returns how such a result is made of these arguments."""
        return self._plan_of(result, {})

    def _plan_of(self, value: Any, groups: dict[int, int]) -> Any:
        if isinstance(value, torch.Tensor):
            return self._plan_of_tensor(value, groups)
        if isinstance(value, list | tuple):
            return Several(type(value), tuple(self._plan_of(item, groups) for item in value))
        return Value(value)

    def _plan_of_tensor(self, value: torch.Tensor, groups: dict[int, int]) -> Any:
        for at, tensor in enumerate(self.tensors):
            if tensor is value:
                return Same(at)
        storage = value.untyped_storage()
        address = storage.data_ptr()
        for at, tensor in enumerate(self.tensors):
            if address and tensor.is_cuda == value.is_cuda and tensor.untyped_storage().data_ptr() == address:
                return View(at, metadata_of(value))
        if not value.is_cuda:
            return OnHost(value.size(), value.stride(), value.dtype)
        group = groups.setdefault(address or id(value), len(groups))
        return Fresh(group, storage.nbytes(), metadata_of(value))

    def made(self, plan: Any, storage_of: Callable[[int, torch.dtype], Any]) -> Any:
        """Returns the result; `storage_of` gives new storages by bytes and dtype."""
        return self._made(plan, storage_of, {})

    def _made(self, plan: Any, storage_of: Callable[[int, torch.dtype], Any], groups: dict[int, Any]) -> Any:
        match plan:
            case Fresh(group, nbytes, metadata):
                if group not in groups:
                    groups[group] = storage_of(nbytes, metadata["dtype"])
                return torch._C._construct_CUDA_Tensor_From_Storage_And_Metadata(metadata, groups[group])
            case View(at, metadata):
                return view_of(self.tensors[at], metadata)
            case Same(at):
                return self.tensors[at]
            case OnHost(size, stride, dtype):
                return torch.empty_strided(size, stride, dtype=dtype).zero_()
            case Several(kind, parts):
                return kind(self._made(part, storage_of, groups) for part in parts)
        return plan.value


def metadata_of(value: torch.Tensor) -> dict[str, Any]:
    """Returns a tensor's dtype, shape, strides and offset, as torch makes a card tensor of them."""
    return {
        "dtype": value.dtype,
        "size": list(value.size()),
        "stride": list(value.stride()),
        "storage_offset": value.storage_offset(),
    }


def view_of(owner: torch.Tensor, metadata: dict[str, Any]) -> torch.Tensor:
    """Returns a view of a tensor; it is an inference tensor if its owner is one, in any mode."""
    if not owner.is_cuda:
        return owner.as_strided(metadata["size"], metadata["stride"], metadata["storage_offset"])
    if owner.is_inference() == torch.is_inference_mode_enabled():
        return torch._C._construct_CUDA_Tensor_From_Storage_And_Metadata(metadata, owner.untyped_storage())
    with torch.inference_mode(owner.is_inference()):
        return torch._C._construct_CUDA_Tensor_From_Storage_And_Metadata(metadata, owner.untyped_storage())
