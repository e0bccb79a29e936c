"""The peak of each phase of a real step.

A meter has boundaries instead of nested spans: what was held at most since the last boundary belongs to the phase
that ends. On a GPU the allocator's cache is given back at each boundary, or a later phase would show the blocks
of an earlier one; so a metered step is a little slower than others, and its phases are comparable with estimates.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.engine.device import Device
from lowmem_rl.engine.device_memory import peak_bytes
from lowmem_rl.memory.calibration import Footprint

OF_A_STEP = ("rollout", "logprobs", "backward", "optimizer")
"""The phases that a meter finds by itself once it is attached to a trainer."""


@dataclass(frozen=True, slots=True)
class StepLengths:
    """Tokens of the longest prompt and the longest completion that were met."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def with_rollout(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> "StepLengths":
        return StepLengths(
            max(self.prompt_tokens, *map(len, prompts)), max(self.completion_tokens, *map(len, completions))
        )


class MemoryProfiler:
    """Measures phases between `begin` and `end`, or those of a trainer's next step once it is attached to one."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.phases: dict[str, Footprint] = {}
        self.lengths = StepLengths()
        self.highest_bytes = 0
        """The most the process held until the last boundary, in any phase or none: there its counters begin anew."""
        self.is_attached = False
        self.unmetered: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns each phase's peak, and the lengths that the metered step met, as plain JSON data."""
        phases = {name: found.model_dump(exclude_none=True) for name, found in self.phases.items()}
        return {"phases": phases, "metered_step": asdict(self.lengths)}

    def begin(self) -> None:
        """Draws a boundary: what was held until now belongs to no phase."""
        self._boundary()

    def end(self, phase: str) -> None:
        """Draws a boundary: what was held since the last one belongs to the phase, which may have come before."""
        found, known = self._boundary(), self.phases.get(phase)
        self.phases[phase] = found if known is None else _higher(found, known)

    def attach(self, trainer: Any) -> None:
        """Measures the trainer's next optimizer step, then lets go of it.

        Both methods are wrapped on the instance: Unsloth rewrites the class.
        """
        self.is_attached = True
        sample, prepare = trainer._generate_single_turn, trainer._prepare_inputs
        self.unmetered = (sample, prepare)

        def metered_sample(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
            self.begin()
            sampled = sample(prompt_ids, *args, **kwargs)
            self.end("rollout")
            self.lengths = self.lengths.with_rollout(prompt_ids, sampled[0])
            return sampled

        def metered_prepare(*args: Any, **kwargs: Any) -> Any:
            inputs = prepare(*args, **kwargs)
            if "rollout" in self.phases and "backward" not in self.phases:
                self.end("logprobs")  # what follows a rollout before the first micro-batch
            self.begin()
            return inputs

        trainer._generate_single_turn, trainer._prepare_inputs = metered_sample, metered_prepare
        trainer.add_callback(self._callback(trainer))

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

    def _callback(self, trainer: Any) -> Any:
        from transformers import TrainerCallback

        def ends(phase: str) -> Any:
            return lambda *args, **kwargs: self.end(phase) if self.is_attached else None

        def step_ends(*args: Any, **kwargs: Any) -> None:
            self._detach(trainer)

        class StepMeter(TrainerCallback):
            on_substep_end = on_pre_optimizer_step = ends("backward")
            on_optimizer_step = ends("optimizer")
            on_step_end = step_ends

        return StepMeter()

    def _detach(self, trainer: Any) -> None:
        """Lets the trainer go; its callback stays, idle: one that leaves would hide its neighbour from this event."""
        if self.is_attached:
            trainer._generate_single_turn, trainer._prepare_inputs = self.unmetered
        self.is_attached = False


def _higher(one: Footprint, other: Footprint) -> Footprint:
    """Returns the higher of two peaks, each kind for itself."""
    sizes = ((name, getattr(one, name), getattr(other, name)) for name in Footprint.model_fields)
    return Footprint(**{name: None if a is None or b is None else max(a, b) for name, a, b in sizes})


def measures_phases_apart(device: Device) -> bool:
    """Says whether a phase's peak can be told from earlier ones': on a GPU always, on a CPU where Linux lets it."""
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
