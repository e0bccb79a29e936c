"""A training whose card becomes too small in the middle of a step: PyTorch's own out of memory, not a played one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowmem_rl_cli.app import main

from benchmarks.gpu.processes import Failed, serve
from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.models.hardware import this_machine

SHARE = 0.6
"""Of what a micro-batch takes beyond what is held anyway: its rows do not fit, half of them may."""


MEASURED = 4
"""The micro-batch that is measured: Unsloth's checks of a new shape take the first ones twice."""


class Cap:
    """Watches one micro-batch, then leaves too little memory for the next."""

    def __init__(self) -> None:
        self.micro_batches = 0
        self.held_bytes = self.peak_bytes = self.limit_bytes = 0

    def after_micro_batch(self) -> None:
        """Is called between two micro-batches of a step."""
        import torch

        self.micro_batches += 1
        if self.micro_batches == MEASURED - 1:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        elif self.micro_batches == MEASURED:
            self.peak_bytes = torch.cuda.max_memory_reserved()
            torch.cuda.empty_cache()  # blocks in the cache would serve the next one without an allocation
            self.held_bytes = torch.cuda.memory_reserved()
            self.limit_bytes = int(self.held_bytes + SHARE * (self.peak_bytes - self.held_bytes))
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(self.limit_bytes / total)


def train(order: Mapping[str, Any]) -> dict[str, Any]:
    """Runs `lowmem-rl train` with these arguments; returns its exit code and the bytes of the cap."""
    config = resolve(preset=order["preset"], settings=order["settings"]).config
    prepare_process(config, device_on(this_machine(), config))
    import_unsloth()  # before transformers
    cap = Cap()
    _watch(cap)
    settings = [argument for setting in order["settings"] for argument in ("--set", setting)]
    code = main(["train", "--preset", order["preset"], *settings, "--force", "--out", order["out"]])
    if not code and not cap.limit_bytes:
        raise Failed(f"The step had {cap.micro_batches} micro-batches between which memory could be capped.")
    return {"code": code, **vars(cap)}


def _watch(cap: Cap) -> None:
    from transformers.trainer_callback import CallbackHandler

    plain = CallbackHandler.on_substep_end

    def on_substep_end(*args: Any, **kwargs: Any) -> Any:
        cap.after_micro_batch()
        return plain(*args, **kwargs)

    CallbackHandler.on_substep_end = on_substep_end


if __name__ == "__main__":
    serve(train)
