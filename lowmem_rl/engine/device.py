"""Where a run computes, in which number format, and how much memory this process has held.

The choice needs no torch, so that a dry run can print it.
"""

import resource
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.models.hardware import Card, Machine

DType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class Device:
    """`cuda` or `cpu`, and the compute type of the adapter and the activations."""

    kind: Literal["cuda", "cpu"]
    dtype: DType

    @property
    def is_gpu(self) -> bool:
        """True for a CUDA card."""
        return self.kind == "cuda"


def device_on(machine: Machine, config: RunConfig) -> Device:
    """Returns the device of a run on this machine.

    Raises `ConfigError` if the card lacks the number format, `SetupError` for vLLM without a card or its package.
    """
    uses_vllm = config.rollout.engine == "vllm"
    if machine.card is None:
        if uses_vllm:
            raise SetupError(
                "rollout.engine = 'vllm' needs a GPU, and this machine shows none.",
                hint="Set rollout.engine=generate, or run `lowmem-rl doctor`.",
            )
        return cpu_device(config)
    if uses_vllm and find_spec("vllm") is None:
        raise SetupError(
            "rollout.engine = 'vllm', but vLLM is not installed.",
            hint="Install it (TRL 1.15 takes 0.21 to 0.31), or set rollout.engine=generate.",
        )
    return device_of(machine.card, config)


def cpu_device(config: RunConfig) -> Device:
    """Returns the device of a run on a CPU; `dtype_fault` says if that is not the configured type."""
    # float16 has no fast CPU kernels; float32 repeats digit for digit on every machine.
    return Device("cpu", "bfloat16" if config.model.dtype == "bfloat16" else "float32")


def dtype_fault(config: RunConfig, device: Device) -> str | None:
    """Returns what differs if a device does not compute in the configured type, else None."""
    wanted = config.model.dtype
    return None if wanted in ("auto", device.dtype) else f"model.dtype = {wanted!r}: a CPU computes in {device.dtype}"


def check_dtype(config: RunConfig, device: Device) -> None:
    """Raises `ConfigError` if a training would not compute in the configured type."""
    if fault := dtype_fault(config, device):
        raise ConfigError(f"{fault}.", hint="Set model.dtype=auto, or bfloat16.")


def device_of(card: Card, config: RunConfig) -> Device:
    """Returns the device of a run on a card, present or not. Raises `ConfigError` if it lacks the number format."""
    wanted = config.model.dtype
    if wanted == "auto":
        return Device("cuda", "bfloat16" if card.has_bf16 else "float16")
    if wanted == "bfloat16" and not card.has_bf16:
        raise ConfigError(f"model.dtype = 'bfloat16': {card.name} has no bfloat16.", hint="Set model.dtype=float16.")
    return Device("cuda", wanted)


def peak_bytes(device: Device) -> int:
    """Returns the most bytes held so far: on a GPU as the driver reports them, else the resident set."""
    if device.is_gpu:
        import torch

        free, total = torch.cuda.mem_get_info()
        outside = total - free - torch.cuda.memory_reserved()  # context, libraries and other processes
        return int(torch.cuda.max_memory_reserved() + max(outside, 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
