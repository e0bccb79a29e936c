"""What running out of memory looks like, and trying again with fewer rows together.

A failed allocation leaves the process usable: the driver's cudaErrorMemoryAllocation does not corrupt its context, in
contrast to an illegal access, and nothing was computed by the call that failed. Two traps lie on the way back. The
exception's traceback holds every frame between here and the failure, and they hold the tensors that filled the memory
(pytorch/pytorch#18853): whoever tries again must have left the `except` block. And bitsandbytes' own C code exits the
process where a paged optimizer's managed memory is refused (csrc/compat.cuh): there only a checkpoint helps.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")

SIGNS = (
    "out of memory",  # torch's caching allocator, a driver's error behind it, Triton's launcher, MPS
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
"""Parts, in lower case, of the messages of plain RuntimeErrors, by which libraries say that an allocation failed.

bitsandbytes' kernels allocate through torch. What its C code allocates itself ends the process with the line "Error out
of memory at line ... in file ..." (CUDA_CHECK_RETURN): paged states, which are made in the first step of a run."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What was said when memory ran out, in one line; the exception itself would keep the memory."""

    why: str


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an allocation failed, on the card or in host RAM."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def catch_oom(call: Callable[[], T]) -> T | OutOfMemory:
    """Returns what `call` returns, or why its memory ran out, once all that it held is free again.

    Any other exception passes.
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
    """Gives back what nobody holds: frames that refer to themselves, then the allocator's cache.

    Raises what the driver says where its context is lost after all.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


Shrink = Callable[[int, str], int]
"""(rows that stood together, why memory ran out) -> rows that may from now on. Raises where it is time to stop."""


@dataclass
class RowLimit:
    """Rows that may stand in memory together in one kind of work: fewer after each time that its memory ran out."""

    shrink: Shrink
    rows: int | None = None
    """None while all that were ever asked for have fitted."""

    def run(self, call: Callable[[int], T], rows: int) -> T:
        """Returns `call` of the rows that may stand together, `rows` at most, again until they fit."""
        while True:
            together = min(rows, self.rows or rows)
            found = catch_oom(partial(call, together))
            if not isinstance(found, OutOfMemory):
                return found
            self.rows = self.shrink(together, found.why)
