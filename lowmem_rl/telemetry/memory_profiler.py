"""The peak of each phase of a real step.

It has boundaries instead of nested spans: the most that was held since the last boundary belongs to the phase that
ends. On a GPU the allocator's cache is given back at each boundary, or a later phase would show the blocks of an
earlier one; so a profiled step is a little slower than others, and its phases are comparable with estimates.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.engine.device import Device, peak_bytes
from lowmem_rl.grpo.scored_batch import ScoredBatch
from lowmem_rl.memory.calibration import Footprint
from lowmem_rl.phases import MEASURED_PHASES, Phase


@dataclass(frozen=True, slots=True)
class StepLengths:
    """Tokens of the longest prompt and the longest completion that were met."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class MemoryProfiler:
    """Measures phases between `begin` and `end`; as a hook, those of a trainer's first step while `is_on`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.phases: dict[str, Footprint] = {}
        self.lengths = StepLengths()
        self.highest_bytes = 0
        """The most the process held until the last boundary, in any phase or none: there its counters restart."""
        self.is_on = False
        """True while a step is profiled: set before the first one."""

    def to_json(self) -> dict[str, Any]:
        """Returns each phase's peak, and the lengths that the profiled step met, as plain JSON data."""
        phases = {name: found.model_dump(exclude_none=True) for name, found in self.phases.items()}
        return {"phases": phases, "metered_step": asdict(self.lengths)}

    def begin(self) -> None:
        """Draws a boundary: what was held until now belongs to no phase."""
        self._boundary()

    def end(self, phase: str) -> None:
        """Draws a boundary: what was held since the last one belongs to the phase, which may have come before."""
        found, known = self._boundary(), self.phases.get(phase)
        self.phases[phase] = found if known is None else _higher(found, known)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Measures a phase of the profiled step; a phase that is not in estimates belongs to the one after it."""
        if not self.is_on or name not in MEASURED_PHASES or name == "logprobs":
            yield
            return
        if name == "backward" and "rollout" in self.phases and name not in self.phases:
            self.end("logprobs")  # what follows a rollout before the first micro-batch
        self.begin()
        yield
        self.end(name)

    def on_scored(self, batch: ScoredBatch) -> None:
        """Notes the lengths that the profiled step meets."""
        if self.is_on:
            longest = StepLengths(max(batch.prompt_tokens), max(map(len, batch.completion_ids)))
            self.lengths = StepLengths(
                max(self.lengths.prompt_tokens, longest.prompt_tokens),
                max(self.lengths.completion_tokens, longest.completion_tokens),
            )

    def on_step(self, row: Any, trainer: Any) -> None:
        """Ends the profile of the step."""
        self.is_on = False

    def _boundary(self) -> Footprint:
        found = self._read()
        self.highest_bytes = max(self.highest_bytes, found.process_bytes)
        if self.device.is_gpu:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            _restart_peak_of_process()
        return found

    def _read(self) -> Footprint:
        if not self.device.is_gpu:
            return Footprint(process_bytes=_peak_of_process() or peak_bytes(self.device))
        import torch

        return Footprint(
            allocated_bytes=torch.cuda.max_memory_allocated(),
            reserved_bytes=torch.cuda.max_memory_reserved(),
            process_bytes=peak_bytes(self.device),
        )


def _higher(one: Footprint, other: Footprint) -> Footprint:
    """Returns the higher of two peaks, each kind for itself."""
    sizes = ((name, getattr(one, name), getattr(other, name)) for name in Footprint.model_fields)
    return Footprint(**{name: None if a is None or b is None else max(a, b) for name, a, b in sizes})


def measures_each_phase(device: Device) -> bool:
    """Returns whether each phase has a peak of its own: on a GPU always, on a CPU if Linux allows it."""
    return device.is_gpu or _restart_peak_of_process()


def _restart_peak_of_process() -> bool:
    """Sets the kernel's mark of the resident set's peak to what is resident now (Linux, proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_of_process() -> int | None:
    """Returns that mark in bytes."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
