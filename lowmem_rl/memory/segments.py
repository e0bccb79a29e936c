"""Whether PyTorch's segments grow in a run: what `train` sets before torch is imported, or what a user has set.

Growing segments are one range of addresses whose pages are mapped as needed, so rows of varying lengths leave no blocks
without use.
"""

import os
import platform
from collections.abc import Mapping

VARIABLE = "PYTORCH_ALLOC_CONF"
_READ_FIRST = ("PYTORCH_CUDA_ALLOC_CONF", VARIABLE)
"""In torch's order (2.14, c10/cuda/CUDAAllocatorConfig.h): the second is read only without the first."""
GROWING = "expandable_segments:True"


def allocator_settings(environment: Mapping[str, str], *, uses_vllm: bool) -> str:
    """Returns the allocator's settings in a run: a user's own, else growing segments where they help.

    vLLM's standby needs fixed segments (unsloth_zoo 2026.10.9 __init__.py:340); under WSL the driver cannot grow them
    (unsloth issue 3511).
    """
    for name in _READ_FIRST:
        if name in environment:
            return environment[name]
    return "" if uses_vllm or "microsoft" in platform.release().lower() else GROWING


def segments_grow(*, uses_vllm: bool) -> bool:
    """Returns whether they grow in a run that starts here now."""
    settings = allocator_settings(os.environ, uses_vllm=uses_vllm)
    return not uses_vllm and GROWING.lower() in settings.replace(" ", "").lower()
