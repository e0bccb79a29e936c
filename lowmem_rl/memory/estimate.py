"""Phases from terms. The worst moment of a phase counts; the peak is the worst phase, never a sum of phases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from lowmem_rl.memory import dora, driver_overhead, generate_sampler, lowmem_sampler, parked, terms
from lowmem_rl.memory.activations import all_groups, backward_moments, forward_layer, scoring, spare_chunk
from lowmem_rl.memory.kept_copies import kept_copies
from lowmem_rl.memory.terms import Term, term
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import GIB

Verdict = Literal["fits", "tight", "does-not-fit"]
Terms = tuple[Term, ...]


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
        return max(map(_expected, self.phases.values()))

    @cached_property
    def upper_bytes(self) -> int:
        """The process's peak if every term is at its worst."""
        return max(self.least_upper_bytes, *map(_upper, self.phases.values()))

    @property
    def reserved_bytes(self) -> int:
        """The pool's peak: PyTorch's `max_memory_reserved`."""
        return max(_bytes_without(driver_overhead.AROUND_THE_POOL, parts) for parts in self.phases.values())

    def phase_bytes(self, phase: str) -> int:
        return _expected(self.phases[phase])

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


_KNOWN_ARCHITECTURES = frozenset(f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Phi3", "Qwen2", "Qwen3"))
_SMALL_CARD_BYTES = int(24.5 * GIB)
"""unsloth_zoo 2026.10.9 fused_losses/fused_linear.py, _SMALL_CARD_BYTES."""
_UNKNOWN_UPPER = 1.5
"""What another architecture may take, over a Llama's of the same sizes; an assumption."""
UNVALIDATED = "unvalidated: no measured run of QLoRA and GRPO through Unsloth is known for this stack"
UNMEASURED_STANDBY = (
    "vLLM's standby with 4-bit weights ran out of memory in two public reports (unsloth 3542, 3603) and nobody has "
    "published a peak of it: at best tight"
)


def estimate(workload: Workload, shape: ModelShape, card: Card | None = None) -> MemoryEstimate:
    """Returns what the workload needs on a card; without one, on a CPU."""
    workload = _as_it_runs(workload, card)
    moments = _moments(workload, shape, card)
    return MemoryEstimate(
        workload=workload,
        shape=shape,
        phases={phase: _worst(found) for phase, found in moments.items()},
        allocated_bytes=max(moment.tensors_bytes for found in moments.values() for moment in found),
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
    if shape.architecture not in _KNOWN_ARCHITECTURES:
        yield f"{shape.architecture} is counted as a Llama of its sizes, with a wider upper value"
    if shape.file_bytes is not None and not shape.files_agree:
        wrong = f"is not what its config.json makes {2 * shape.num_params / GIB:.2f} in 16 bit"
        if shape.quantised != "no":
            wrong = "no 4-bit copy of its config.json can be"
        used = "the rest is added" if shape.uncounted_params else "the formulas decide"
        yield f"{shape.key}'s files hold {shape.file_bytes / GIB:.2f} GiB, which {wrong}: {used}"


class _Moment(NamedTuple):
    """All that is there at once, and its sums."""

    parts: Terms
    tensors_bytes: int
    expected_bytes: int
    upper_bytes: int


def _moments(workload: Workload, shape: ModelShape, card: Card | None) -> dict[str, list[_Moment]]:
    """Returns, by phase, all that is there at once, moment by moment."""
    base = (
        terms.linear_weights(workload, shape),
        terms.other_weights(workload, shape),
        terms.uncounted_weights(workload, shape),
        terms.rope_tables(workload, shape),
    )
    adapter, held = terms.adapter(workload, shape), terms.gradients(workload, shape)
    states = (terms.optimizer_states(workload, shape), terms.paged_states(workload, shape))
    start = terms.start_copy(workload, shape)
    learned = (adapter, start, terms.whole_weights(workload), terms.gradient_sums(workload, shape))
    at_rest = (parked.linear_weights_left(workload, shape), *base[1:], parked.resting_copies(workload))
    freed = terms.upcast_blocks(workload, shape)
    resting = freed._replace(expected_bytes=0)  # other requests take them
    idle = (*at_rest, *learned, *states, terms.weight_copies(workload, shape), resting)
    resident = (*idle, *generate_sampler.resident_engine(workload, shape, card))
    between = (*resident, kept_copies(workload, shape))
    kept, read = lowmem_sampler.kept_here(workload, shape), lowmem_sampler.states_read(workload, shape)
    seen = lowmem_sampler.states_seen(workload, shape)
    later = (kept,) if workload.old_logprob_pass else ()  # the next step reads them, too
    norms = dora.norms(workload, shape)
    # A merged copy finds them once, some rows at a time.
    is_merged = workload.rollout_engine == "lowmem" and workload.rollout_weights == "merged"
    found_each_token = () if is_merged else (norms,)

    def phase(resident: Terms, passing: Iterable[Terms], *, learning: bool = False) -> list[_Moment]:
        return list(_phase(workload, shape, card, resident, passing, learning=learning))

    in_use = terms.dequantised_matrix(workload, shape)

    found = {"load": phase((*base, *learned), [(_loading(workload, shape), freed)])}
    if workload.loss == "grpo":
        if workload.rollout_engine == "vllm":
            found["rollout"] = phase((*idle, *generate_sampler.vllm_share(workload, shape, card)), [()])
        else:
            rows = workload.rollout_rows
            prompts, waits = lowmem_sampler.prompts_of(workload, rows), workload.grouped_rows > rows
            found["rollout"] = phase(
                (*idle, in_use, *found_each_token, kept, seen), _sampled(workload, shape, rows, prompts, waits)
            )
        if workload.old_logprob_pass or workload.reference_pass:
            pass_over_layers = (forward_layer(workload, shape, workload.tokens, "one layer's forward"), in_use, norms)
            pass_over_logits = (scoring(workload, shape), spare_chunk(workload, shape))
            found["logprobs"] = phase((*between, kept, read), [pass_over_layers, pass_over_logits])
    earlier = (held,) if workload.accumulated or not terms.trains_whole(workload) else ()
    found["backward"] = phase((*between, kept, read, *earlier), backward_moments(workload, shape), learning=True)
    copies = (terms.undo_copy(workload, shape), terms.compared_copy(workload, shape))
    found["optimizer"] = phase((*between, kept), [(held, terms.optimizer_scratch(workload, shape), *copies)])
    if workload.eval_rows:
        answering = _sampled(workload, shape, workload.eval_rows, workload.eval_rows, True)
        found["evaluation"] = phase((*resident, in_use, *later, *found_each_token), answering)
        if workload.parks_originals:
            compared = parked.compared_with_base(workload, shape)
            one_row = forward_layer(workload, shape, workload.row_tokens, "one layer's forward")
            found["evaluation"] += phase((*between, *later), [(*compared, one_row)])
    return found | {"save": phase((*between, *later), [()])}


def _worst(found: list[_Moment]) -> Terms:
    """Returns the terms of the worst moment; its slack's upper value covers the other moments' upper values."""
    worst, slack = max(found, key=lambda moment: moment.expected_bytes), driver_overhead.SLACK
    missing = max(moment.upper_bytes for moment in found) - worst.upper_bytes
    covered = (one._replace(upper_bytes=one.upper_bytes + missing) if one.name == slack else one for one in worst.parts)
    return tuple(one for one in covered if one.upper_bytes)


def _phase(
    workload: Workload,
    shape: ModelShape,
    card: Card | None,
    resident: Terms,
    passing: Iterable[Terms],
    *,
    learning: bool,
) -> Iterator[_Moment]:
    """Yields what is there with each of those that pass, around it the pool's slack and the driver's context."""
    widen = shape.architecture not in _KNOWN_ARCHITECTURES
    resident = tuple(map(_widened, resident)) if widen else resident
    held, most, context = _expected(resident), _upper(resident), driver_overhead.context(card)
    for one in passing:
        parts = tuple(map(_widened, one)) if widen else one
        tensors = held + _expected(parts)
        slack = driver_overhead.slack(workload, shape, parts, card, learning=learning)
        slack = driver_overhead.cut_to_card(slack, tensors + context.expected_bytes, card)
        around = (slack, context)
        yield _Moment(
            parts=(*resident, *parts, *around),
            tensors_bytes=tensors,
            expected_bytes=tensors + _expected(around),
            upper_bytes=most + _upper(parts) + _upper(around),
        )


def _widened(one: Term) -> Term:
    return one._replace(upper_bytes=int(_UNKNOWN_UPPER * one.upper_bytes), grade="assumed")


def _bytes_without(names: tuple[str, ...], parts: Iterable[Term]) -> int:
    return sum(one.expected_bytes for one in parts if one.name not in names)


def _expected(parts: Terms) -> int:
    return sum([one.expected_bytes for one in parts])


def _upper(parts: Terms) -> int:
    return sum([one.upper_bytes for one in parts])


def _loading(workload: Workload, shape: ModelShape) -> Term:
    """The largest matrix in 16 bit while it is quantised; what Unsloth uploads in 4 bit is quantised already."""
    quantised_here = workload.method == "qlora" and not workload.dynamic_checkpoint and shape.quantised == "no"
    size = 2 * shape.largest_matrix if quantised_here else 0
    return term("matrix being quantised", size, "read from source", "largest matrix x 2")


def _sampled(workload: Workload, shape: ModelShape, rows: int, prompts: int, waits: bool) -> Iterator[Terms]:
    """Returns the moments of sampling without vLLM, which answers no evaluation; `waits`: prompts wait for slots."""
    if workload.rollout_engine == "lowmem":
        ahead = lowmem_sampler.prompts_ahead(workload, prompts) if waits else 0
        return lowmem_sampler.peak_points(workload, shape, rows, prompts, ahead)
    return generate_sampler.generate_moments(workload, shape, rows)
