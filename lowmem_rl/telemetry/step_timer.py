"""Where a step's time goes: read at the boundaries of its phases, which costs nothing and waits for nothing.

On a CPU a boundary is the moment at which the program reaches it. On a GPU, whose work is queued, it is the moment at
which the card does: a CUDA event is queued there and read when the step has ended anyway.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from lowmem_rl.engine.device import Device
from lowmem_rl.phases import OTHER, STEP_PHASES, seconds_key

Mark = Any
"""A moment: seconds, or a CUDA event."""


class StepTimer:
    """Times the phases of the present step; a phase within a phase counts once, as the inner one.

    A step begins with its first phase: what happens between two steps belongs to neither.
    """

    def __init__(self, device: Device) -> None:
        self.is_gpu = device.is_gpu
        self.is_between = True
        self.open = [OTHER]
        self.marks: list[tuple[str, Mark]] = []
        self.began_s = 0.0

    def restart(self) -> None:
        """Begins a step."""
        self.is_between, self.marks, self.began_s = False, [], time.monotonic()

    def read(self) -> dict[str, float]:
        """Returns the seconds of the step so far, whole and by phase, as metric rows name them."""
        whole = time.monotonic() - self.began_s
        if self.is_gpu and self.marks:
            self.marks[-1][1].synchronize()  # the trainer has read the loss: nothing is left to wait for
        spent = {str(phase): 0.0 for phase in STEP_PHASES}
        for (phase, began), (_, ended) in pairwise(self.marks):
            if phase in spent:
                spent[phase] += began.elapsed_time(ended) / 1000 if self.is_gpu else ended - began
        spent[OTHER] = max(0.0, whole - sum(spent.values()))
        return {"step_s": whole} | {seconds_key(phase): seconds for phase, seconds in spent.items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what runs inside as a phase."""
        if self.is_between:
            self.restart()
        self.open.append(name)
        self._mark()
        try:
            yield
        finally:
            self.open.pop()
            self._mark()

    def on_step(self, row: dict[str, Any], trainer: Any) -> None:
        """Adds the step's seconds to its row; the step is over."""
        row |= self.read()
        self.is_between = True

    def _mark(self) -> None:
        """Notes what runs from now on."""
        self.marks.append((self.open[-1], self._now()))

    def _now(self) -> Mark:
        if not self.is_gpu:
            return time.monotonic()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
