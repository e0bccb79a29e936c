"""What the figure of the process assumes: rows of one length, or of any; and what both would take."""

from dataclasses import dataclass, replace
from typing import Any

from lowmem_rl.memory.estimate import MemoryEstimate
from lowmem_rl.planning.search import PlanTarget
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class ProcessFigure:
    """The process's expected peak by how lengths vary, and if segments did not grow."""

    one_length_bytes: int
    varying_bytes: int
    fixed_segments_bytes: int
    """Varying lengths without growing segments; PyTorch gives back what it can under pressure."""
    segments_grow: bool

    @property
    def assumes(self) -> str:
        """What the estimate's own figure means."""
        if self.segments_grow:
            return "rows of any length: PyTorch's segments grow"
        return "rows of one length: segments do not grow"

    def __str__(self) -> str:
        one, varying = (f"{size / GIB:.1f}" for size in (self.one_length_bytes, self.varying_bytes))
        text = f"The process is that of {self.assumes}; {one} GiB at one length, {varying} if lengths vary"
        return text + (f", {self.fixed_segments_bytes / GIB:.1f} in fixed segments" if self.segments_grow else "")

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {
            "assumes": self.assumes,
            "one_length": self.one_length_bytes,
            "varying_lengths": self.varying_bytes,
            "varying_lengths_fixed_segments": self.fixed_segments_bytes,
        }


def process_figure(found: MemoryEstimate, target: PlanTarget) -> ProcessFigure | None:
    """Returns what a run's process takes at one length and at varying ones; None on a CPU, which has no pool."""
    if target.card is None:
        return None
    varying = replace(found.workload, lengths_vary=True)
    fixed = replace(varying, expandable_segments=False)
    # A run may hold more in a phase of its own, as in rounds that choose its layers.
    any_length, unused = (
        max(target.needs(workload).expected_bytes, found.expected_bytes) for workload in (varying, fixed)
    )
    return ProcessFigure(found.expected_bytes, any_length, unused, found.workload.expandable_segments)
