"""Phases from terms. The worst moment of a phase counts; the peak is the worst phase, never a sum of phases."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from lowmem_rl.memory import driver_overhead, terms
from lowmem_rl.memory.activations import all_groups
from lowmem_rl.memory.moments import KNOWN_ARCHITECTURES, Moment, moments
from lowmem_rl.memory.terms import Terms, expected_sum, upper_sum
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import GIB

Verdict = Literal["fits", "tight", "does-not-fit"]


@dataclass(frozen=True)  # no slots: the sums are kept
class MemoryEstimate:
    """What a workload needs, phase by phase. "Process" is what the driver reports."""

    workload: Workload
    shape: ModelShape
    phases: dict[str, Terms]
    """Of each phase the moment at which the process is largest; the slack's upper value covers the others'."""
    allocated_bytes: int
    """The tensors' peak, of all moments: PyTorch's `max_memory_allocated`."""
    host_bytes: int
    disk_bytes: int
    notes: tuple[str, ...] = ()
    """What makes this estimate less sure than others."""
    least_upper_bytes: int = 0
    """What the upper value is at least: more than the card has, for a kind of run that failed where others fit."""

    @property
    def learning_numbers(self) -> int:
        """Numbers that ever learn: of the adapter, or whole."""
        return terms.trained_params(self.workload, self.shape) + self.workload.whole_params

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=self.phase_bytes)

    @cached_property
    def expected_bytes(self) -> int:
        """The process's peak."""
        return max(map(expected_sum, self.phases.values()))

    @cached_property
    def upper_bytes(self) -> int:
        """The process's peak if every term is at its worst."""
        return max(self.least_upper_bytes, *map(upper_sum, self.phases.values()))

    @property
    def reserved_bytes(self) -> int:
        """The pool's peak: PyTorch's `max_memory_reserved`."""
        return max(map(_pool_bytes, self.phases.values()))

    def phase_bytes(self, phase: str) -> int:
        return expected_sum(self.phases[phase])

    def verdict(self, budget_bytes: int) -> Verdict:
        return verdict(self.expected_bytes, self.upper_bytes, budget_bytes)

    def to_json_phases(self) -> dict[str, dict[str, int]]:
        """Returns bytes by phase and term; a phase's terms add up to its bytes."""
        return {phase: {one.name: one.expected_bytes for one in parts} for phase, parts in self.phases.items()}


def verdict(expected_bytes: int, upper_bytes: int, budget_bytes: int) -> Verdict:
    """Returns whether that fits into a budget surely, probably or not; an assumed size has a wider upper value."""
    if upper_bytes <= budget_bytes:
        return "fits"
    return "tight" if expected_bytes <= budget_bytes else "does-not-fit"


_SMALL_CARD_BYTES = int(24.5 * GIB)
"""unsloth_zoo 2026.10.9 fused_losses/fused_linear.py, _SMALL_CARD_BYTES."""
UNVALIDATED = "unvalidated: no measured run of QLoRA and GRPO through Unsloth is known for this stack"
UNMEASURED_STANDBY = (
    "vLLM's standby with 4-bit weights ran out of memory in two public reports (unsloth 3542, 3603) and nobody has "
    "published a peak of it: at best tight"
)


def estimate(workload: Workload, shape: ModelShape, card: Card | None = None) -> MemoryEstimate:
    """Returns what the workload needs on a card; without one, on a CPU."""
    workload = _as_it_runs(workload, card)
    found = moments(workload, shape, card)
    return MemoryEstimate(
        workload=workload,
        shape=shape,
        phases={phase: _worst(at_once) for phase, at_once in found.items()},
        allocated_bytes=max(moment.tensors_bytes for at_once in found.values() for moment in at_once),
        host_bytes=driver_overhead.host_bytes(workload, shape),
        disk_bytes=driver_overhead.disk_bytes(workload, shape),
        notes=tuple(_notes(workload, shape)),
        least_upper_bytes=card.offered_bytes + 1 if card and _is_unmeasured(workload) else 0,
    )


def _as_it_runs(workload: Workload, card: Card | None) -> Workload:
    """Returns the workload with what the card makes of it.

    On a CPU, what would be paged, parked or offloaded is in host memory already. FlashAttention-2 needs Ampere: before
    it Unsloth runs the memory-efficient kernel, plain layers copy keys.
    """
    changes: dict[str, Any] = {"tiles_logits": card is not None and card.offered_bytes <= _SMALL_CARD_BYTES}
    if card is None:
        changes |= {
            "compute_bytes": 4 if workload.wide_on_cpu else workload.compute_bytes,
            "optimizer": workload.optimizer.removeprefix("paged_"),
            "checkpointing": "plain" if workload.checkpointing == "unsloth" else workload.checkpointing,
            "grouped_rows": 0,
            "keeps_on_card": True,
            "parks_masters": False,
            "parks_originals": False,
            "state_share": workload.state_share + workload.parked_state_share,
            "parked_state_share": 0.0,
        }
    if workload.attention == "flash" and (card is None or card.compute_capability < (8, 0)):
        changes["attention"] = "efficient" if card is not None and workload.layer == "unsloth" else "sdpa"
    different = {name: value for name, value in changes.items() if value != getattr(workload, name)}
    return replace(workload, **different) if different else workload


def _is_unmeasured(workload: Workload) -> bool:
    return (workload.rollout_engine, workload.method, workload.standby) == ("vllm", "qlora", True)


def _notes(workload: Workload, shape: ModelShape) -> Iterable[str]:
    if _is_unmeasured(workload):
        yield UNMEASURED_STANDBY
    if (workload.stack, workload.loss, workload.method) == ("unsloth", "grpo", "qlora"):
        yield UNVALIDATED
    if workload.grouped_rows and (workload.old_logprob_pass or workload.reference_pass):
        size = all_groups(workload, shape).upper_bytes / GIB
        yield f"log-probs: up to {size:.1f} GiB for all groups at once, or micro-batches if that does not fit"
    if shape.architecture not in KNOWN_ARCHITECTURES:
        yield f"{shape.architecture} is counted as a Llama of its sizes, with a wider upper value"
    if shape.file_bytes is not None and not shape.files_agree:
        wrong = f"is not what its config.json makes {2 * shape.num_params / GIB:.2f} in 16 bit"
        if shape.quantised != "no":
            wrong = "no 4-bit copy of its config.json can be"
        used = "the rest is added" if shape.uncounted_params else "the formulas decide"
        yield f"{shape.key}'s files hold {shape.file_bytes / GIB:.2f} GiB, which {wrong}: {used}"


def _worst(found: list[Moment]) -> Terms:
    """Returns the terms of the worst moment; its slack's upper value covers the other moments' upper values."""
    worst = max(found, key=lambda moment: moment.expected_bytes)
    missing = max(moment.upper_bytes for moment in found) - worst.upper_bytes
    slack = worst.slack._replace(upper_bytes=worst.slack.upper_bytes + missing)
    return tuple([one for one in (*worst.tensors, slack, worst.context) if one.upper_bytes])


def _pool_bytes(parts: Terms) -> int:
    return expected_sum(one for one in parts if one.name not in driver_overhead.AROUND_THE_POOL)
