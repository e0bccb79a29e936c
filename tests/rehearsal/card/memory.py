"""The allocator: card storages over host memory, their bytes counted, out of memory played."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import os
import traceback
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.rehearsal.card import live_blocks
from tests.rehearsal.card.shape_plans import metadata_of, view_of
from tests.rehearsal.card.state import STATE

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CONTEXT_BYTES, TURING_CONTEXT_BYTES = 400 * 2**20, 141 * 2**20
"""What the driver takes for a context: the order of what Ampere cards show, an assumption; of a T4 as it was measured
elsewhere (`memory.driver_overhead`)."""
NO_RESERVE = 0x4000
"""MAP_NORESERVE of Linux: address space without memory."""
FAILED = 2**64 - 1
"""MAP_FAILED of mmap(2)."""
ROUNDED_TO = 512
"""Bytes of which PyTorch's allocator gives multiples (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""
PAGE = 4096


@dataclass(slots=True, eq=False)
class Block:
    """A card storage: a weak reference to it, and the host memory that it is made of."""

    host: Any
    """A storage, or the address space of a phantom in bytes."""
    nbytes: int
    address: int
    number: int
    typed: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)
    """Host tensors over all of it."""
    weak: Any = None

    @property
    def held_bytes(self) -> int:
        return -(-self.nbytes // ROUNDED_TO) * ROUNDED_TO


NUMBERS = itertools.count()
AT: dict[int, Block] = {}
"""Live blocks by the address of their first byte."""


def context_bytes() -> int:
    """Returns the bytes of the context."""
    return CONTEXT_BYTES if STATE.card.compute_capability >= (8, 0) else TURING_CONTEXT_BYTES


def device_bytes() -> int:
    """Returns the bytes of the card without the context's."""
    return STATE.card.offered_bytes - context_bytes() if STATE.limit_bytes is None else STATE.limit_bytes


def capacity() -> int:
    """Returns the bytes that tensors may take."""
    return device_bytes() if STATE.allowed_bytes is None else min(device_bytes(), STATE.allowed_bytes)


def free_bytes() -> int:
    """Returns what is left of the card; a fraction that the process may take is not looked at, as in CUDA."""
    return device_bytes() - STATE.allocated_bytes


def account(nbytes: int) -> None:
    """Counts an allocation. Raises `torch.OutOfMemoryError` if it does not fit or is to fail."""
    STATE.allocations += 1
    if STATE.allocations in STATE.fail_at:
        raise out_of_memory(nbytes)
    if STATE.allocated_bytes + nbytes > capacity():
        gc.collect()
        if STATE.allocated_bytes + nbytes > capacity():
            raise out_of_memory(nbytes)


def out_of_memory(nbytes: int) -> torch.OutOfMemoryError:
    """Returns the error in torch's words, and notes where it happens."""
    frames = [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_stack()
        if "/torch/" not in frame.filename and "/rehearsal/card/" not in frame.filename
    ]
    STATE.failures.append(frames[-14:])
    return torch.OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate {nbytes / 2**20:.2f} MiB. GPU 0 has a total capacity of "
        f"{STATE.card.offered_bytes / 2**30:.2f} GiB of which {free_bytes() / 2**20:.2f} MiB is free (simulated)."
    )


def card_storage(host: torch.UntypedStorage) -> torch.UntypedStorage:
    """Returns a card storage over a host storage."""
    account(host.nbytes())
    return _registered(host.data_ptr(), host.nbytes(), host)


def phantom_storage(nbytes: int) -> torch.UntypedStorage:
    """Returns a card storage whose pages are never touched."""
    account(nbytes)
    space = -(-max(nbytes, 1) // PAGE) * PAGE
    return _registered(ADDRESSES.take(space), nbytes, space)


def _registered(address: int, nbytes: int, host: Any) -> torch.UntypedStorage:
    storage = torch._C._construct_storage_from_data_pointer(address, CUDA, nbytes)
    block = AT[address] = Block(host, nbytes, address, next(NUMBERS))
    # A storage's Python object lives exactly as long as the storage.
    block.weak = weakref.ref(storage, lambda _: _gone(block))
    STATE.allocated_bytes += block.held_bytes
    live_blocks.note(block.number, block.held_bytes)
    if STATE.allocated_bytes > STATE.peak_bytes:
        STATE.peak_bytes = STATE.allocated_bytes
        live_blocks.mark_peak()
    return storage


def _gone(block: Block) -> None:
    STATE.allocated_bytes -= block.held_bytes
    live_blocks.forget(block.number)
    if AT.get(block.address) is block:
        del AT[block.address]
    if isinstance(block.host, int):
        ADDRESSES.give_back(block.address, block.host)
    block.host = None


class Addresses:
    """Address space for phantoms, given out again when they are gone: a mapping each would take longer."""

    SIZE = 2**45

    def __init__(self) -> None:
        self.start = self.used = 0
        self.free: dict[int, list[int]] = {}

    def take(self, space: int) -> int:
        """Returns the address of `space` bytes. Raises `MemoryError` if there are too few."""
        if free := self.free.get(space):
            return free.pop()
        self.start = self.start or self._reserved()
        self.used += space
        if self.used > self.SIZE:
            raise MemoryError("no address space is left for tensors without data")
        return self.start + self.used - space

    def give_back(self, address: int, space: int) -> None:
        """Lets the next phantom of that size have the place."""
        self.free.setdefault(space, []).append(address)

    def _reserved(self) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = libc.mmap(None, ctypes.c_size_t(self.SIZE), protection, flags, -1, ctypes.c_long(0))
        if address in (None, FAILED):
            reason = os.strerror(ctypes.get_errno())
            raise MemoryError(f"no address space of {self.SIZE} bytes for tensors without data: {reason} (ulimit -v)")
        return int(address)


ADDRESSES = Addresses()


def on_storage(storage: Any, like: torch.Tensor) -> torch.Tensor:
    """Returns a card tensor over `storage` with another tensor's dtype, shape, strides and offset."""
    return torch._C._construct_CUDA_Tensor_From_Storage_And_Metadata(metadata_of(like), storage)


def view_on(owner: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Returns a view of a card tensor with another tensor's dtype, shape, strides and offset."""
    return view_of(owner, metadata_of(like))


def to_card(host: torch.Tensor) -> torch.Tensor:
    """Returns a card tensor over the memory of a host tensor that has no other owner."""
    return on_storage(card_storage(host.untyped_storage()), host)


def alias(card: torch.Tensor) -> torch.Tensor:
    """Returns the host's view of a card tensor's memory."""
    storage = card.untyped_storage()
    block = AT.get(storage.data_ptr())
    if block is None or not block.nbytes:
        host = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), CPU, storage.nbytes())
        empty = torch.empty(0, dtype=card.dtype, device="cpu")
        return empty.set_(host, card.storage_offset(), card.size(), card.stride())
    whole = block.typed.get(card.dtype)
    if whole is None:
        whole = block.typed[card.dtype] = _whole(storage.data_ptr(), block.nbytes, card.dtype)
    return whole.as_strided(card.size(), card.stride(), card.storage_offset())


def _whole(address: int, nbytes: int, dtype: torch.dtype) -> torch.Tensor:
    host = torch._C._construct_storage_from_data_pointer(address, CPU, nbytes)
    with torch.inference_mode(False):
        return torch.empty(0, dtype=dtype, device="cpu").set_(host, 0, (nbytes // dtype.itemsize,), (1,))
