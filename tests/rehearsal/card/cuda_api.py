"""`torch.cuda` and `torch.accelerator`: one card, its memory as `memory.py` counts it."""

from __future__ import annotations

import collections
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from tests.rehearsal.card import live_blocks, memory, random_numbers, waits
from tests.rehearsal.card.state import MULTIPROCESSORS, STATE
from tests.rehearsal.card.streams import DEFAULT_STREAM, DeviceContext, Event, Stream, StreamContext

SHARED_BYTES = {
    (7, 5): 65536,
    (8, 0): 166912,
    (8, 6): 101376,
    (8, 9): 101376,
    (9, 0): 232448,
    (12, 0): 101376,
    (12, 1): 101376,
}
"""Most shared memory of a block by compute capability (CUDA programming guide, table of technical specifications)."""


def properties(device: Any = None) -> SimpleNamespace:
    """Returns what `torch.cuda.get_device_properties` does."""
    major, minor = STATE.capability
    return SimpleNamespace(
        name=STATE.card.name,
        major=major,
        minor=minor,
        total_memory=STATE.card.offered_bytes,
        multi_processor_count=MULTIPROCESSORS[STATE.card.key],
        is_integrated=0,
        is_multi_gpu_board=0,
        max_threads_per_multi_processor=1536,
        max_threads_per_block=1024,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=SHARED_BYTES[STATE.capability],
        shared_memory_per_multiprocessor=102400,
        warp_size=32,
        L2_cache_size=6 * 2**20,
        gcnArchName="",
        uuid="simulated",
        pci_bus_id=0,
    )


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Returns free and total bytes."""
    return memory.free_bytes(), memory.device_bytes() + memory.context_bytes()


def allocated(device: Any = None) -> int:
    """Returns the bytes that are held."""
    return STATE.allocated_bytes


def max_allocated(device: Any = None) -> int:
    """Returns the most that was held since the last reset."""
    return STATE.peak_bytes


def reset_peak(device: Any = None) -> None:
    """Begins a new peak."""
    STATE.peak_bytes = STATE.allocated_bytes
    live_blocks.reset()


def set_fraction(fraction: float, device: Any = None) -> None:
    """Leaves a share of the card's memory to tensors."""
    STATE.allowed_bytes = int(fraction * STATE.card.offered_bytes)


def get_fraction(device: Any = None) -> float:
    """Returns that share."""
    return 1.0 if STATE.allowed_bytes is None else STATE.allowed_bytes / STATE.card.offered_bytes


def memory_stats(device: Any = None) -> dict[str, int]:
    """Returns the allocator's counters; reserved is allocated."""
    stats: dict[str, int] = collections.defaultdict(int, num_ooms=len(STATE.failures))
    for kind in ("allocated_bytes", "reserved_bytes", "active_bytes"):
        stats[f"{kind}.all.current"], stats[f"{kind}.all.peak"] = allocated(), max_allocated()
    return stats


def synchronize(device: Any = None) -> None:
    """Waits for nothing, and is counted."""
    waits.note("torch.cuda.synchronize")


def nothing(*args: Any, **kwargs: Any) -> None:
    """Replaces what has no meaning here."""


def always(value: Any) -> Callable[..., Any]:
    """Returns a function of that value."""
    return lambda *args, **kwargs: value


def patch() -> None:
    """Replaces functions of `torch.cuda` and `torch.accelerator`."""
    for name, function in {**DEVICES, **MEMORY, **STREAMS, **RANDOM}.items():
        setattr(torch.cuda, name, _own(function))
    for name in RANDOM:
        setattr(torch.cuda.random, name, getattr(torch.cuda, name))
    torch.cuda.memory.mem_get_info, torch.cuda.memory.empty_cache = torch.cuda.mem_get_info, torch.cuda.empty_cache
    torch._C._cuda_getCurrentRawStream, torch._C._cuda_getDevice = always(0), always(0)
    torch._C._cuda_getDeviceCount, torch._C._cuda_emptyCache = always(1), _own(nothing)
    for name, function in ACCELERATOR.items():
        setattr(torch.accelerator, name, _own(function))


def _own(function: Any) -> Any:
    """Returns a function of its own for each name: torch.compile's rules are by function, and differ by name."""
    return function if isinstance(function, type) else lambda *args, **kwargs: function(*args, **kwargs)


DEVICES: dict[str, Any] = {
    "_lazy_init": nothing,
    "_lazy_call": lambda callable, **kwargs: callable(),
    "is_available": always(True),
    "is_initialized": always(True),
    "init": nothing,
    "device_count": always(1),
    "current_device": always(0),
    "set_device": nothing,
    "get_device_capability": lambda device=None: STATE.capability,
    "get_device_name": lambda device=None: STATE.card.name,
    "get_device_properties": properties,
    "get_arch_list": always(["sm_75", "sm_80", "sm_86", "sm_90"]),
    "is_bf16_supported": lambda including_emulation=True: STATE.card.has_bf16 or including_emulation,
    "device": DeviceContext,
    "device_of": DeviceContext,
    "_exchange_device": always(0),
    "_maybe_exchange_device": always(0),
}
MEMORY: dict[str, Any] = {
    "mem_get_info": mem_get_info,
    "memory_allocated": allocated,
    "memory_reserved": allocated,
    "max_memory_allocated": max_allocated,
    "max_memory_reserved": max_allocated,
    "reset_peak_memory_stats": reset_peak,
    "reset_max_memory_allocated": reset_peak,
    "memory_stats": memory_stats,
    "memory_stats_as_nested_dict": lambda device=None: {},
    "host_memory_stats": lambda: collections.defaultdict(int),
    "memory_summary": always(""),
    "empty_cache": nothing,
    "ipc_collect": nothing,
    "set_per_process_memory_fraction": set_fraction,
    "get_per_process_memory_fraction": get_fraction,
}
STREAMS: dict[str, Any] = {
    "synchronize": synchronize,
    "Stream": Stream,
    "Event": Event,
    "stream": StreamContext,
    "StreamContext": StreamContext,
    "set_stream": nothing,
    "current_stream": always(DEFAULT_STREAM),
    "default_stream": always(DEFAULT_STREAM),
    "is_current_stream_capturing": always(False),
}
RANDOM: dict[str, Any] = {
    "get_rng_state": random_numbers.get_rng_state,
    "set_rng_state": random_numbers.set_rng_state,
    "get_rng_state_all": lambda: [random_numbers.get_rng_state()],
    "set_rng_state_all": lambda states: [random_numbers.set_rng_state(state) for state in states],
    "manual_seed": random_numbers.manual_seed,
    "manual_seed_all": random_numbers.manual_seed,
    "seed": nothing,
    "seed_all": nothing,
}
ACCELERATOR: dict[str, Any] = {
    "is_available": always(True),
    "device_count": always(1),
    "current_accelerator": lambda check_available=False: torch.device("cuda"),
    "current_device_index": always(0),
    "current_device_idx": always(0),
    "set_device_index": nothing,
    "set_device_idx": nothing,
    "synchronize": synchronize,
    "empty_cache": nothing,
    "current_stream": always(DEFAULT_STREAM),
    "memory_allocated": allocated,
    "memory_reserved": allocated,
    "max_memory_allocated": max_allocated,
    "max_memory_reserved": max_allocated,
    "reset_peak_memory_stats": reset_peak,
    "get_memory_info": mem_get_info,
}
