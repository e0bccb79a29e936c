"""What a card says of itself: name, driver, capability, versions, clocks and what holds them down."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from benchmarks.gpu.processes import serve

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
    """Returns clocks, power, heat and what holds the clocks down of the card that torch uses, as far as NVML says."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    try:
        return _answers(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}"))
    except pynvml.NVMLError:  # a slice of a card (MIG) has a UUID that NVML does not take for a card's
        return {}
    finally:
        pynvml.nvmlShutdown()


def _answers(nvml: Any, gpu: Any) -> dict[str, Any]:
    asked = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "most_sm_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "most_memory_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "held_down_by": lambda: _reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
    }
    found: dict[str, Any] = {}
    for name, ask in asked.items():
        with suppress(nvml.NVMLError, AttributeError):  # a card or a binding that does not know
            found[name] = ask()
    return found


def _reasons(bits: int) -> list[str]:
    return [name for name, bit in THROTTLES.items() if bits & bit]


def describe(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all of it, after a second of work that wakes the clocks."""
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
        "optional": {name: _version(name) for name in ("triton", "xformers", "vllm", "flash_attn")},
        "clocks": clocks(),
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    serve(describe)
