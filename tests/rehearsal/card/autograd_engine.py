"""What the autograd engine asks of CUDA before each backward: there is one card, without a context.

torch's own answer is an error if there is no driver, and the question does not go through Python: the first bytes of
two functions of libc10_cuda are overwritten (x86-64, Linux). `hasPrimaryContext` is not an exported symbol; c10 holds a
pointer to it, through which its own function of that name jumps: `movsbl %dil, %edi; jmp *offset(%rip)`.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from pathlib import Path

import torch

JUMP = bytes.fromhex("400fbeffff25")
RETURN_0 = bytes.fromhex("31c0c3")
"""xor eax, eax; ret"""
RETURN_1 = bytes.fromhex("b801000000c3")
"""mov eax, 1; ret"""
READ_WRITE_EXECUTE, READ_EXECUTE = 7, 5


def patch() -> None:
    """Overwrites both. Raises `NotImplementedError` on other systems, `RuntimeError` if torch's code differs."""
    if (platform.machine(), sys.platform) != ("x86_64", "linux"):
        raise NotImplementedError("the simulated card needs Linux on x86-64")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10_cuda.so"))
    jump = _address(library, "_ZN3c104cuda17hasPrimaryContextEa")
    code = ctypes.string_at(jump, 10)
    if code[:6] != JUMP:
        raise RuntimeError(f"torch {torch.__version__} has another hasPrimaryContext: {code.hex()}")
    pointer = jump + 10 + int.from_bytes(code[6:], "little", signed=True)
    _write(ctypes.c_uint64.from_address(pointer).value, RETURN_0)
    _write(_address(library, "_ZN3c104cuda12device_countEv"), RETURN_1)


def _address(library: ctypes.CDLL, name: str) -> int:
    return int(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0)


def _write(address: int, code: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    page, length = ctypes.c_void_p(address & ~(mmap.PAGESIZE - 1)), ctypes.c_size_t(2 * mmap.PAGESIZE)
    if libc.mprotect(page, length, READ_WRITE_EXECUTE):
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memmove(address, code, len(code))
    libc.mprotect(page, length, READ_EXECUTE)
