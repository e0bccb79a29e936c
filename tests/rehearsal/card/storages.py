"""Copies of whole storages, which torch makes in C: `torch.save`, `copy.deepcopy`, `.cpu()` of a storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tests.rehearsal.card import waits
from tests.rehearsal.card.memory import CPU, card_storage


def host_copy(storage: Any) -> torch.UntypedStorage:
    """Returns a host storage with the same bytes."""
    fresh = torch.UntypedStorage(storage.nbytes())
    if storage.nbytes():
        source = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), CPU, storage.nbytes())
        _bytes(fresh).copy_(_bytes(source))
    return fresh


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


def _without_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes(), torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return run


def patch() -> None:
    """Replaces the methods of `torch.UntypedStorage` that copy."""
    kind = torch.UntypedStorage
    plain_cpu, plain_clone = kind.cpu, kind.clone

    def cpu(self: Any) -> Any:
        if self.device.type != "cuda":
            return plain_cpu(self)
        waits.note_bytes(self.nbytes())
        return host_copy(self)

    def clone(self: Any) -> Any:
        return card_storage(host_copy(self)) if self.device.type == "cuda" else plain_clone(self)

    def to(self: Any, *, device: Any, non_blocking: bool = False) -> Any:
        return cuda(self) if torch.device(device).type == "cuda" else cpu(self)

    def cuda(self: Any, device: Any = None, non_blocking: bool = False) -> Any:
        if self.device.type != "cuda":
            waits.note(waits.TO_CARD)
        return card_storage(host_copy(self))

    kind.cpu, kind.clone = _without_mode(cpu), _without_mode(clone)
    kind.to, kind.cuda = _without_mode(to), _without_mode(cuda)
    kind.pin_memory = lambda self, device=None: self
    kind.__deepcopy__ = lambda self, memo: memo.setdefault("torch", {}).setdefault(self._cdata, self.clone())
