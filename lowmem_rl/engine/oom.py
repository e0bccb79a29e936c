"""Detects that memory ran out, and tries again with fewer rows together.

A failed allocation leaves the process usable: the driver's cudaErrorMemoryAllocation does not corrupt its context, in
contrast to an illegal access, and nothing was computed by the call that failed. Two traps: the exception's traceback
holds every frame between here and the failure, and these hold the tensors that filled the memory
(pytorch/pytorch#18853), so a retry must come after the `except` block. And bitsandbytes' own C code exits the process
if a paged optimizer's managed memory is refused (csrc/compat.cuh): then only a checkpoint helps.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")

_SIGNS = (
    "out of memory",  # torch's caching allocator, a driver's error after it, Triton's launcher, MPS
    "out_of_memory",  # the driver's own name of it, CUDA_ERROR_OUT_OF_MEMORY
    "errormemoryallocation",  # the runtime's: cudaErrorMemoryAllocation
    "can't allocate memory",  # torch's CPU allocator on Linux
    "not enough memory",  # the same on Windows
    "cannot allocate memory",  # errno ENOMEM: pinned and shared memory
    "bad_alloc",  # any C++ library
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER and cuSPARSE: CUBLAS_STATUS_ALLOC_FAILED and its like
    "cublas_status_not_initialized",  # cublasCreate without room for its workspace
    "device_allocation_failed",  # cuDNN 9
)
"""Parts, in lower case, of the messages of plain RuntimeErrors with which libraries report a failed allocation.

bitsandbytes' kernels allocate through torch. If its C code cannot allocate, the process ends with the line "Error out
of memory at line ... in file ..." (CUDA_CHECK_RETURN): paged states, which are made in the first step of a run."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The message of the error, in one line; the exception itself would keep the memory."""

    why: str


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an allocation failed, on the card or in host RAM."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def catch_oom(call: Callable[[], T]) -> T | OutOfMemory:
    """Returns what `call` returns, or why its memory ran out, after all that it held is free again.

    Other exceptions pass through.
    """
    try:
        return call()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    free_memory()
    return OutOfMemory(why)


def free_memory() -> None:
    """Frees unreachable objects, reference cycles included, then empties the allocator's cache.

    Raises the driver's error if its context is lost after all.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


@dataclass
class RowLimit:
    """The most rows that may be in memory together in one kind of work: fewer after each OOM."""

    shrink: Callable[[int, str], int]
    """(rows that were together, why memory ran out) -> rows that may be together now; raises if it is time to stop."""
    rows: int | None = None
    """None while every number of rows has fitted."""

    def run(self, call: Callable[[int], T], rows: int) -> T:
        """Returns `call` of the rows that may be together, `rows` at most; retries until they fit."""
        while True:
            together = min(rows, self.rows or rows)
            found = catch_oom(partial(call, together))
            if not isinstance(found, OutOfMemory):
                return found
            self.rows = self.shrink(together, found.why)
