"""Triton: its kernels run in Triton's interpreter on the host's aliases, or as the formulas of `row_kernels.py`."""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import Any

import torch

from tests.rehearsal.card import cuda_api, phantom
from tests.rehearsal.card.attention import on_the_host
from tests.rehearsal.card.memory import CUDA, alias
from tests.rehearsal.card.row_kernels import FORMULAS
from tests.rehearsal.card.state import MULTIPROCESSORS, STATE

Lent = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Storages of bfloat16 and a copy of each in float32: the interpreter computes with NumPy, which has no bfloat16."""


def on_host(value: Any, lent: Lent | None) -> Any:
    """Returns a kernel's argument on the host. Raises `ValueError` for a host tensor, as Triton does."""
    if isinstance(value, tuple):
        return tuple(on_host(item, lent) for item in value)
    if not isinstance(value, torch.Tensor):
        return value
    if not value.is_cuda:
        raise ValueError(f"Pointer argument cannot be accessed from Triton (cpu tensor?) {tuple(value.shape)}")
    low = alias(value)
    if low.dtype != torch.bfloat16 or lent is None:
        return low
    storage = low.untyped_storage()
    if storage.data_ptr() not in lent:
        whole = torch.empty(0, dtype=torch.bfloat16).set_(storage, 0, (storage.nbytes() // 2,), (1,))
        lent[storage.data_ptr()] = whole, whole.float()
    return lent[storage.data_ptr()][1].as_strided(low.size(), low.stride(), low.storage_offset())


def arguments_on_host(self: Any, args: Any, kwargs: Any) -> Any:
    """Replaces `GridExecutor._init_args_hst`."""
    STATE.kernels[getattr(self.fn, "__name__", str(self.fn))] += 1
    self.lent = {}
    with on_the_host():
        low = [on_host(value, self.lent) for value in args]
        return low, {key: on_host(value, self.lent) for key, value in kwargs.items()}


def write_back(self: Any, *args: Any) -> None:
    """Replaces `GridExecutor._restore_args_dev`."""
    with on_the_host():
        for narrow, wide in self.lent.values():
            narrow.copy_(wide)
    self.lent = {}


def run_formula(executor: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Computes a row kernel's formula."""
    STATE.kernels[name] += 1
    known = inspect.getfullargspec(executor.fn).args
    with on_the_host():
        low = (on_host(value, None) for value in args)
        named = {key: on_host(value, None) for key, value in kwargs.items() if key in known}
        FORMULAS[name](**inspect.getcallargs(executor.fn, *low, **named))


def patch() -> None:
    """Replaces how Triton's interpreter takes its arguments."""
    from triton.runtime import interpreter

    plain = interpreter.GridExecutor.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self.fn, "__name__", "")
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if STATE.phantom_bytes is not None and any(map(phantom.is_large, tensors)):
            STATE.kernels[name] += 1
            if not all(tensor.is_cuda for tensor in tensors):
                raise ValueError(f"Pointer argument cannot be accessed from Triton (cpu tensor?) {name}")
        elif name in FORMULAS and os.environ.get("REHEARSE_INTERPRET") != "1":
            run_formula(self, name, args, kwargs)
        else:
            with torch.inference_mode(False), torch.no_grad():
                plain(self, *args, **kwargs)

    interpreter.GridExecutor.__call__ = call
    interpreter.GridExecutor._init_args_hst = arguments_on_host
    interpreter.GridExecutor._restore_args_dev = write_back
    patch_driver()


class Target:
    """What Triton asks of the card."""

    backend, warp_size = "cuda", 32

    @property
    def arch(self) -> int:
        return STATE.capability[0] * 10 + STATE.capability[1]


class Driver:
    """Replaces Triton's active driver."""

    class utils:
        """Its name in Triton."""

        @staticmethod
        def get_device_properties(device: Any) -> dict[str, int]:
            return {
                "max_shared_mem": cuda_api.SHARED_BYTES[STATE.capability],
                "multiprocessor_count": MULTIPROCESSORS[STATE.card.key],
                "warpSize": 32,
            }

    def get_current_target(self) -> Target:
        return Target()

    def get_active_torch_device(self) -> torch.device:
        return CUDA

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: Any = None) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return torch.cuda


def patch_driver() -> None:
    """Makes this driver Triton's."""
    import triton

    triton.runtime.driver.set_active(Driver())
    with contextlib.suppress(ImportError):
        import triton.backends.nvidia.driver as nvidia

        nvidia.libcuda_dirs = list
