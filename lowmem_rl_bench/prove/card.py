"""Properties of a card: name, driver, capability, versions, clocks and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lowmem_rl.entrypoints.doctor import installed
from lowmem_rl_bench.prove.processes import serve

THROTTLES = {
    "idle": 0x1,
    "clocks set by hand": 0x2,
    "power cap": 0x4,
    "slowdown by hardware": 0x8,
    "synchronised boost": 0x10,
    "heat, by software": 0x20,
    "heat, by hardware": 0x40,
    "power brake": 0x80,
    "display": 0x100,
}
"""Bits of nvmlDeviceGetCurrentClocksThrottleReasons (nvml.h, nvmlClocksThrottleReason...)."""


def clocks() -> dict[str, Any]:
    """Returns clocks, power, temperature and clock limits of the card that torch uses, as far as NVML reports them."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    try:
        return _readings(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}"))
    except pynvml.NVMLError:  # NVML does not accept the UUID of a MIG slice as a card's
        return {}
    finally:
        pynvml.nvmlShutdown()


def _readings(nvml: Any, gpu: Any) -> dict[str, Any]:
    readers: dict[str, Callable[[], Any]] = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "most_sm_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "most_memory_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "held_down_by": lambda: _throttles(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
    }
    found: dict[str, Any] = {}
    for name, read in readers.items():
        with suppress(nvml.NVMLError, AttributeError):  # not known to this card or binding
            found[name] = read()
    return found


def _throttles(bits: int) -> list[str]:
    return [name for name, bit in THROTTLES.items() if bits & bit]


def describe(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all properties, after a second of work that raises the clocks."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    square = torch.ones(order["side"], order["side"], device="cuda", dtype=torch.float16)
    for _ in range(order["products"]):
        square @ square
    torch.cuda.synchronize()
    return {
        "name": torch.cuda.get_device_name(0),
        "capability": list(torch.cuda.get_device_capability(0)),
        "total_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "optional": {name: installed(name) for name in ("triton", "xformers", "vllm", "flash_attn")},
        "clocks": clocks(),
    }


if __name__ == "__main__":
    serve(describe)
