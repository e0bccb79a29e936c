"""The most memory this process has held, in bytes, and giving it back."""

import gc
import resource
import sys

from lowmem_rl.engine.device import Device


def peak_bytes(device: Device) -> int:
    """Returns the peak so far: on a GPU what the driver had given out at most, else the resident set."""
    if device.is_gpu:
        import torch

        free, total = torch.cuda.mem_get_info()
        outside = total - free - torch.cuda.memory_reserved()  # context, libraries and other processes
        return int(torch.cuda.max_memory_reserved() + max(outside, 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def free_memory(device: Device) -> None:
    """Gives back what models that nobody holds any more have taken; a trainer and its model refer to each other."""
    gc.collect()
    if device.is_gpu:
        import torch

        torch.cuda.empty_cache()
