"""All that is there at once in a run, moment by moment, phase by phase in the order of time."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lowmem_rl.memory import dora, driver_overhead, generate_sampler, lowmem_sampler, parked, terms
from lowmem_rl.memory.activations import forward_layer, scoring, spare_chunk
from lowmem_rl.memory.backward_moments import backward_moments
from lowmem_rl.memory.base_comparison import comparison_moments
from lowmem_rl.memory.kept_copies import kept_copies
from lowmem_rl.memory.terms import Term, Terms, expected_sum, term, upper_sum
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import Card
from lowmem_rl.models.shape import ModelShape

KNOWN_ARCHITECTURES = frozenset(f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Phi3", "Qwen2", "Qwen3"))
_UNKNOWN_UPPER = 1.5
"""What another architecture may take, over a Llama's of the same sizes; an assumption."""


class Moment(NamedTuple):
    """All that is there at once, and its sums."""

    tensors: Terms
    slack: Term
    context: Term
    tensors_bytes: int
    expected_bytes: int
    upper_bytes: int


class _Phase(NamedTuple):
    """What is there throughout a phase, and what comes and goes in it, one after the other."""

    name: str
    resident: Terms
    passing: Iterable[Terms]
    learning: bool = False


class _Held(NamedTuple):
    """What stays for longer than a phase."""

    loaded: Terms
    """Weights as they are loaded, and what learns."""
    idle: Terms
    """Weights, what learns and its optimizer's states, when nothing is computed."""
    resident: Terms
    """That, and what vLLM keeps while the model learns."""
    between: Terms
    """That, and copies of frozen layers that are kept between rollouts."""
    kept: Term
    """The states that enter the lowest layer that learns, from the rollout to the update."""
    later: Terms
    """The same, if the next step reads them, too."""


def moments(workload: Workload, shape: ModelShape, card: Card | None) -> dict[str, list[Moment]]:
    """Returns, by phase, all that is there at once, moment by moment."""
    found: dict[str, list[Moment]] = {}
    for phase in _phases(workload, shape, card):
        found.setdefault(phase.name, []).extend(_moments_of(phase, workload, shape, card))
    return found


def _phases(workload: Workload, shape: ModelShape, card: Card | None) -> Iterator[_Phase]:
    held = _held(workload, shape, card)
    yield _Phase("load", held.loaded, [(_loading(workload, shape), terms.upcast_blocks(workload, shape))])
    if workload.loss == "grpo":
        yield _rollout(workload, shape, card, held)
        if workload.old_logprob_pass or workload.reference_pass:
            yield _logprobs(workload, shape, held)
    yield from _update(workload, shape, held)
    if workload.eval_rows:
        yield from _evaluation(workload, shape, held)
    yield _Phase("save", (*held.between, *held.later), [()])


def _held(workload: Workload, shape: ModelShape, card: Card | None) -> _Held:
    weights = (
        terms.linear_weights(workload, shape),
        terms.other_weights(workload, shape),
        terms.uncounted_weights(workload, shape),
        terms.rope_tables(workload, shape),
    )
    learned = (
        terms.adapter(workload, shape),
        terms.start_copy(workload, shape),
        terms.whole_weights(workload),
        terms.gradient_sums(workload, shape),
    )
    idle = (
        parked.linear_weights_left(workload, shape),
        *weights[1:],
        parked.resting_copies(workload),
        *learned,
        terms.optimizer_states(workload, shape),
        terms.paged_states(workload, shape),
        terms.weight_copies(workload, shape),
        terms.upcast_blocks(workload, shape)._replace(expected_bytes=0),  # other requests take them
    )
    resident = (*idle, *generate_sampler.resident_engine(workload, shape, card))
    between, kept = (*resident, kept_copies(workload, shape)), lowmem_sampler.kept_here(workload, shape)
    later = (kept,) if workload.old_logprob_pass else ()
    return _Held((*weights, *learned), idle, resident, between, kept, later)


def _loading(workload: Workload, shape: ModelShape) -> Term:
    """The largest matrix in 16 bit while it is quantised; what Unsloth uploads in 4 bit is quantised already."""
    quantised_here = workload.method == "qlora" and not workload.dynamic_checkpoint and shape.quantised == "no"
    size = 2 * shape.largest_matrix if quantised_here else 0
    return term("matrix being quantised", size, "read from source", "largest matrix x 2")


def _rollout(workload: Workload, shape: ModelShape, card: Card | None, held: _Held) -> _Phase:
    if workload.rollout_engine == "vllm":
        return _Phase("rollout", (*held.idle, *generate_sampler.vllm_share(workload, shape, card)), [()])
    rows = workload.rollout_rows
    prompts, waits = lowmem_sampler.prompts_of(workload, rows), workload.grouped_rows > rows
    seen = lowmem_sampler.states_seen(workload, shape)
    in_use = terms.matrix_in_use(workload, shape)
    copies = terms.cached_copies(workload, shape)
    resident = (*held.idle, in_use, copies, *_found_each_token(workload, shape), held.kept, seen)
    return _Phase("rollout", resident, _sampled(workload, shape, rows, prompts, waits))


def _sampled(workload: Workload, shape: ModelShape, rows: int, prompts: int, waits: bool) -> Iterator[Terms]:
    """Returns the moments of sampling without vLLM, which answers no evaluation; `waits`: prompts wait for slots."""
    if workload.rollout_engine == "lowmem":
        ahead = lowmem_sampler.prompts_ahead(workload, prompts) if waits else 0
        return lowmem_sampler.peak_points(workload, shape, rows, prompts, ahead)
    return generate_sampler.generate_moments(workload, shape, rows)


def _found_each_token(workload: Workload, shape: ModelShape) -> Terms:
    """Norms of DoRA; a merged copy finds them once, some rows at a time."""
    is_merged = workload.rollout_engine == "lowmem" and workload.rollout_weights == "merged"
    return () if is_merged else (dora.norms(workload, shape),)


def _logprobs(workload: Workload, shape: ModelShape, held: _Held) -> _Phase:
    in_use = terms.matrix_in_use(workload, shape)
    layer = forward_layer(workload, shape, workload.tokens, "one layer's forward")
    layers = (layer, in_use, dora.norms(workload, shape))
    logits = (scoring(workload, shape), spare_chunk(workload, shape))
    copies = terms.cached_copies(workload, shape)
    resident = (*held.between, copies, held.kept, lowmem_sampler.states_read(workload, shape))
    return _Phase("logprobs", resident, [layers, logits])


def _update(workload: Workload, shape: ModelShape, held: _Held) -> Iterator[_Phase]:
    read, gradients = lowmem_sampler.states_read(workload, shape), terms.gradients(workload, shape)
    earlier = (gradients,) if workload.accumulated or not terms.trains_whole(workload) else ()
    resident = (*held.between, held.kept, read, *earlier)
    yield _Phase("backward", resident, backward_moments(workload, shape), learning=True)
    copies = (terms.undo_copy(workload, shape), terms.compared_copy(workload, shape))
    stepping = (gradients, terms.optimizer_scratch(workload, shape), *copies)
    yield _Phase("optimizer", (*held.between, held.kept), [stepping])


def _evaluation(workload: Workload, shape: ModelShape, held: _Held) -> Iterator[_Phase]:
    rows = workload.eval_rows
    in_use = terms.matrix_in_use(workload, shape)
    copies = terms.cached_copies(workload, shape)
    resident = (*held.resident, in_use, copies, *held.later, *_found_each_token(workload, shape))
    yield _Phase("evaluation", resident, _sampled(workload, shape, rows, rows, True))
    yield _Phase("evaluation", (*held.between, copies, *held.later), comparison_moments(workload, shape))


def _moments_of(phase: _Phase, workload: Workload, shape: ModelShape, card: Card | None) -> Iterator[Moment]:
    """Yields what is there with each of those that pass, around it the pool's slack and the driver's context."""
    widen = shape.architecture not in KNOWN_ARCHITECTURES
    resident = tuple(map(_widened, phase.resident)) if widen else phase.resident
    held, most, context = expected_sum(resident), upper_sum(resident), driver_overhead.context(card)
    for one in phase.passing:
        parts = tuple(map(_widened, one)) if widen else one
        tensors = held + expected_sum(parts)
        slack = driver_overhead.slack(workload, shape, parts, card, learning=phase.learning)
        slack = driver_overhead.cut_to_card(slack, tensors + context.expected_bytes, card)
        yield Moment(
            tensors=(*resident, *parts),
            slack=slack,
            context=context,
            tensors_bytes=tensors,
            expected_bytes=tensors + slack.expected_bytes + context.expected_bytes,
            upper_bytes=most + upper_sum(parts) + slack.upper_bytes + context.upper_bytes,
        )


def _widened(one: Term) -> Term:
    return one._replace(upper_bytes=int(_UNKNOWN_UPPER * one.upper_bytes), grade="assumed")
