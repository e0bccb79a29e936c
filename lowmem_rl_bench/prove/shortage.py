"""A training whose card becomes too small during a step: PyTorch's real OOM, not a simulated one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.models.hardware import this_machine
from lowmem_rl_bench.prove.processes import Failed, serve

SHARE = 0.6
"""Of a micro-batch's memory above the constant part: its rows do not fit, half of them do."""

MEASURED = 4
"""The measured micro-batch: Unsloth's checks of a new shape run the first ones twice."""


class Cap:
    """Measures one micro-batch, then leaves too little memory for the next."""

    def __init__(self) -> None:
        self.micro_batches = 0
        self.held_bytes = self.peak_bytes = self.limit_bytes = 0

    def after_micro_batch(self) -> None:
        """Runs after the backward of each micro-batch."""
        import torch

        self.micro_batches += 1
        if self.micro_batches == MEASURED - 1:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        elif self.micro_batches == MEASURED:
            self.peak_bytes = torch.cuda.max_memory_reserved()
            torch.cuda.empty_cache()  # cached blocks would serve the next one without an allocation
            self.held_bytes = torch.cuda.memory_reserved()
            self.limit_bytes = int(self.held_bytes + SHARE * (self.peak_bytes - self.held_bytes))
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(self.limit_bytes / total)


def train(order: Mapping[str, Any]) -> dict[str, Any]:
    """Trains as `lowmem-rl train` does with these settings; returns the bytes of the cap.

    Raises what a run raises: `TrainingError` if it does not survive.
    """
    composed = resolve(preset=order["preset"], settings=order["settings"])
    prepare_process(composed.config, device_on(this_machine(), composed.config))
    import_unsloth()  # before transformers
    from lowmem_rl.entrypoints.train import run

    cap = Cap()
    _call_after_each_backward(cap)
    run(composed, Path(order["out"]), force=True)
    if not cap.limit_bytes:
        raise Failed(f"The step had {cap.micro_batches} micro-batches, too few for a cap.")
    return vars(cap)


def _call_after_each_backward(cap: Cap) -> None:
    """Before the phase ends: in a run's first step the memory profiler then restarts the counters."""
    from accelerate import Accelerator

    plain = Accelerator.backward

    def backward(*args: Any, **kwargs: Any) -> None:
        plain(*args, **kwargs)
        cap.after_micro_batch()

    Accelerator.backward = backward


if __name__ == "__main__":
    serve(train)
