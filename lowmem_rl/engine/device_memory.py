"""The most memory this process has held, in bytes."""

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
