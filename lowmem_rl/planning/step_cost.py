"""What a GRPO step asks of a card, part by part: multiplications, bytes moved, kernels launched.

Counts alone, no speed. N is the number of weights in the linear layers, V x H that of the head, which works on
completion tokens only. Our engine reads each distinct prompt once, and a waiting row takes the slot of a finished one;
`generate` gives every row its own copy of the prompt and decodes until the last row of a wave has ended. In the update
every row has its own copy of the prompt, micro-batches are filled with tokens, and dead groups cost nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple

from lowmem_rl.config.rules import BY_GRADIENT
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.adapter_tensors import frozen_numbers, learning_tensors, numbers_in
from lowmem_rl.memory.lowmem_sampler import PREFILL_TOKENS
from lowmem_rl.memory.terms import kv_bytes_per_token, nf4_bytes
from lowmem_rl.memory.trained_set import TrainedSet, mean_backward_layers, trained_set
from lowmem_rl.memory.workload import can_keep_states, compute_bytes_of, engine_of
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.trainable.selection import probe_config

_OFFLOAD_SLOWDOWN = 1.02
"""Copying activations to host RAM and back during the computation: 1.9 % (unsloth.ai/blog/long-context)."""
_OWN_LAYERS_LAUNCHES = 2.0
"""Kernels that the host launches for a layer of the model's own modules, over those of merged ones: some 70 to 30,
counted in seven 4-bit linear layers with adapters against four joined ones. On a CPU the whole step of the embedded
model was 4.2 times as long (float32, one x86 core, 2026-11-20)."""

WeightPath = Literal["fused", "expand", "copy"]
"""How the matmul gets its weights: 4-bit as they are, expanded to the compute type each time, or in it already."""


class StepCost(NamedTuple):
    """One part of a step, done `times` over. Multiplications overlap with `bytes`, expanding with nothing."""

    name: str
    times: float
    flops: float
    bytes: float
    expanded_bytes: float
    """Bytes moved to expand 4-bit weights before they are used."""
    layer_passes: float
    """Layers launched by the host: a wait if the card is faster than Python."""
    bus_bytes: float = 0.0
    """Bytes copied between card and host RAM, before or after all of this."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is not known of a step beforehand."""

    filled: float = 1.0
    """Mean length of prompts and completions over their limits."""
    informative: float = 1.0
    """Share of the groups whose rewards differ."""


LONGEST = Scenario()


@dataclass(frozen=True, slots=True)
class MatmulWeights:
    """A model's weights on their way to the matmul."""

    shape: ModelShape
    path: WeightPath
    compute_bytes: int = 2
    """Width of a number in the compute type."""

    @property
    def linear_bytes(self) -> float:
        """Bytes read to use every linear weight once."""
        return self.shape.linear_params * (nf4_bytes() if self.path == "fused" else self.compute_bytes)

    @property
    def expanded_bytes(self) -> float:
        """Bytes moved before that: 4-bit weights read, expanded ones written."""
        return self.shape.linear_params * (nf4_bytes() + self.compute_bytes) if self.path == "expand" else 0.0

    @property
    def head_params(self) -> int:
        """V H."""
        return self.shape.vocab_size * self.shape.hidden_size


def step_work(config: RunConfig, shape: ModelShape, scenario: Scenario = LONGEST) -> Iterator[StepCost]:
    """Yields what one optimizer step of a resolved run takes; a rollout that serves several steps counts in part."""
    grpo, rows = config.grpo, config.rows_per_rollout
    steps_a_rollout = grpo.steps_per_rollout * grpo.passes_per_rollout
    for work in _sampling(config, shape, scenario, rows, config.rollout_rows, prompts=rows // grpo.group_size):
        yield work._replace(times=work.times / steps_a_rollout)
    states = _states_bytes(config, shape, scenario.filled * (grpo.max_prompt_tokens + grpo.max_completion_tokens))
    if states:
        yield StepCost("states to host", rows / steps_a_rollout, 0.0, 0.0, 0.0, 0.0, states)
    weights, micro_batches = _weights(config, shape), config.rows_per_step / config.micro_batch
    sampled = config.micro_batch * grpo.max_completion_tokens
    tokens = sampled + config.micro_batch * grpo.max_prompt_tokens
    read = _states_bytes(config, shape, tokens)
    trained, keeps = trained_set(config, shape), config.keeps_states and can_keep_states(config, shape)
    computed = trained.backward_layers / shape.num_layers if keeps else 1.0
    # In step with the sampling TRL takes the current log-probs for the old ones.
    for name, is_taken in (("old log-probs", steps_a_rollout > 1), ("reference", grpo.beta)):
        if is_taken:
            forward = log_probs(name, weights, config.micro_batch, tokens, sampled, computed)
            yield forward._replace(times=micro_batches / grpo.passes_per_rollout, bus_bytes=read)
    work = update(
        weights,
        config.micro_batch,
        tokens,
        sampled,
        checkpointing=config.checkpointing,
        trained=trained,
        backward_layers=mean_backward_layers(config, shape),
        computed=computed,
    )
    # With a penalty a row without an advantage has a gradient too.
    live = 1.0 if grpo.beta else scenario.informative
    renormed = dora_bytes(config, shape) * (1 if config.checkpointing == "none" else 2)
    work = work._replace(expanded_bytes=work.expanded_bytes + renormed, bus_bytes=read)
    yield work._replace(times=max(1.0, micro_batches * scenario.filled * live))


def _states_bytes(config: RunConfig, shape: ModelShape, tokens: float) -> float:
    """Returns the bytes of the kept states of so many tokens, if they are in host RAM."""
    is_parked = config.memory.kept_states == "host" and can_keep_states(config, shape)
    return tokens * shape.hidden_size * compute_bytes_of(config) if is_parked else 0.0


def selection_work(config: RunConfig, shape: ModelShape, scenario: Scenario = LONGEST) -> Iterator[StepCost]:
    """Yields what the rounds take that score the layers before the first step: none unless gradients do."""
    if config.trainable.select in BY_GRADIENT:
        for work in step_work(probe_config(config), shape, scenario):
            yield work._replace(name="selection", times=work.times * config.trainable.select_rounds)


def evaluation_work(config: RunConfig, shape: ModelShape, scenario: Scenario = LONGEST) -> Iterator[StepCost]:
    """Yields what all evaluations of a run take: the full one at both ends, the cheap ones in between."""
    full, quick = config.eval.examples, min(config.eval.quick_examples, config.eval.examples)
    between = (config.grpo.steps - 1) // config.eval.every if config.eval.every else 0
    for examples, times in ((full, 2), (quick, between)):
        for work in _sampling(config, shape, scenario, examples, min(config.eval.batch, examples), prompts=examples):
            yield work._replace(name="evaluation", times=work.times * times)


def probe_work(
    config: RunConfig, shape: ModelShape, completions: int, scenario: Scenario = LONGEST
) -> Iterator[StepCost]:
    """Yields what `lowmem-rl probe` takes for so many completions, as it asks: each has its prompt read on its own."""
    wave = min(config.eval.batch, completions)
    yield from _sampling(config, shape, scenario, completions, wave, prompts=completions)


def _attention_flops(shape: ModelShape, rows: int, tokens: float) -> float:
    """Returns causal scores and mixes of one forward: 2 L q S^2 a row."""
    return 2.0 * shape.num_layers * shape.query_size * rows * tokens**2


def decode(weights: MatmulWeights, adapter: int, rows: float, prompt_tokens: float, steps: float) -> StepCost:
    """`steps` tokens for each of `rows` rows; the KV cache counts at its mean length, `adapter` is its weights."""
    shape, b, context = weights.shape, weights.compute_bytes, prompt_tokens + steps / 2
    fixed = weights.linear_bytes + b * (weights.head_params + adapter)
    return StepCost(
        name="decode",
        times=steps,
        flops=2.0 * (shape.linear_params + weights.head_params) * rows,
        bytes=fixed + rows * context * kv_bytes_per_token(shape, b),
        expanded_bytes=weights.expanded_bytes,
        layer_passes=shape.num_layers,
    )


def prefill(weights: MatmulWeights, rows: int, prompt_tokens: int) -> StepCost:
    """One forward over the prompts of a wave: 2N a token."""
    return log_probs("prefill", weights, rows, rows * prompt_tokens, completion_tokens=0)


def log_probs(
    name: str, weights: MatmulWeights, rows: int, tokens: int, completion_tokens: int, computed: float = 1.0
) -> StepCost:
    """One forward without gradients over `rows` rows with `tokens` tokens in all: 2N a token.

    `computed`: the share of the layers that are not left out because what enters the others was kept.
    """
    shape, head = weights.shape, 2.0 * weights.head_params * completion_tokens
    layers = 2.0 * shape.linear_params * tokens + _attention_flops(shape, rows, tokens / rows)
    return StepCost(
        name=name,
        times=1,
        flops=computed * layers + head,
        bytes=computed * weights.linear_bytes + weights.head_params * weights.compute_bytes,
        expanded_bytes=computed * weights.expanded_bytes,
        layer_passes=computed * shape.num_layers,
    )


def update(
    weights: MatmulWeights,
    rows: int,
    tokens: int,
    completion_tokens: int,
    *,
    checkpointing: Literal["unsloth", "plain", "none"],
    trained: TrainedSet,
    backward_layers: float | None = None,
    computed: float = 1.0,
) -> StepCost:
    """Forward and backward of a micro-batch: 4N a token, 6N if activations are recomputed.

    2N forward and 2N for the gradient of the activations: frozen weights get none of their own, P whole ones 2P.
    The backward pass goes through the layers from the lowest that learns (`backward_layers` on average, unset: those of
    the worst period); those below run forward alone, or not at all: `computed` is the share of layers that run.
    Flash attention's backward is 2.5 forwards; a layer's backward launches two forwards' worth of kernels.
    """
    depth = trained.backward_layers if backward_layers is None else backward_layers
    shape, backward = weights.shape, depth / weights.shape.num_layers
    passes = computed + (1 if checkpointing == "none" else 2) * backward
    slower = _OFFLOAD_SLOWDOWN if checkpointing == "unsloth" else 1.0
    attention = (passes + 1.5 * backward) * _attention_flops(shape, rows, tokens / rows)
    linear = 2.0 * (passes * shape.linear_params + trained.whole_params) * tokens
    head = 4.0 * weights.head_params * completion_tokens
    return StepCost(
        name="update",
        times=1,
        flops=slower * (linear + head + attention),
        bytes=passes * weights.linear_bytes + 2 * weights.compute_bytes * weights.head_params,
        expanded_bytes=passes * weights.expanded_bytes,
        layer_passes=slower * (passes + backward) * shape.num_layers,
    )


def _weights(config: RunConfig, shape: ModelShape, *, rows: int = 2, merged: bool = False) -> MatmulWeights:
    """Returns the weights for a matmul of `rows` rows.

    Unsloth's 4-bit matrix-vector kernel takes one row; for more it expands (unsloth 2026.10.9 kernels/utils.py;
    some cards take up to four, which waves never are).
    """
    path: WeightPath = "copy" if merged or config.model.bits == 16 else "fused" if rows == 1 else "expand"
    return MatmulWeights(shape, path, compute_bytes_of(config))


def _sampling(
    config: RunConfig, shape: ModelShape, scenario: Scenario, rows: int, wave: int, prompts: int
) -> Iterator[StepCost]:
    is_ours = engine_of(config, shape) == "lowmem"
    if config.adapter.use_dora and not (is_ours and config.rollout_weights == "merged"):
        tokens = config.grpo.max_completion_tokens * ceil(rows / wave)
        yield StepCost("norms of DoRA", tokens, 0.0, 0.0, dora_bytes(config, shape), 0.0)
    if is_ours:
        yield from _sampling_by_us(config, shape, scenario, rows, wave, prompts)
        return
    prompt, steps, adapter = config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens, _adapter(config, shape)
    full, rest = divmod(rows, wave)
    for size, waves in ((wave, full), (rest, 1)):
        if size and waves:
            yield prefill(_weights(config, shape), size, prompt)._replace(times=waves)
            decoded = decode(_weights(config, shape, rows=size), adapter, size, prompt, steps)
            yield decoded._replace(times=waves * decoded.times)


def _sampling_by_us(
    config: RunConfig, shape: ModelShape, scenario: Scenario, rows: int, wave: int, prompts: int
) -> Iterator[StepCost]:
    """Full waves for as long as rows wait, then one whose rows leave until the longest ends."""
    merged, adapter = config.rollout_weights == "merged", _adapter(config, shape)
    launches = _OWN_LAYERS_LAUNCHES if config.model.bits == 4 and not merged else 1.0
    prompt, steps = scenario.filled * config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens
    if merged:  # every weight expanded once, then read and written once more while layers are joined
        own = _weights(config, shape)
        moved = 2.0 * own.compute_bytes * shape.linear_params
        yield StepCost("merge", 1, 0.0, moved, own.expanded_bytes, 1.0 * shape.num_layers)
    together = min(prompts, max(PREFILL_TOKENS // ceil(prompt), 1))
    read = prefill(_weights(config, shape, merged=merged), together, ceil(prompt))
    yield read._replace(times=prompts / together, layer_passes=launches * read.layer_passes)
    waiting = ceil(rows / wave) - 1
    for alive, tokens, times in ((wave, scenario.filled * steps, waiting), (scenario.filled * wave, steps, 1)):
        weights = _weights(config, shape, rows=ceil(alive), merged=merged)
        decoded = decode(weights, adapter, max(alive, 1), prompt, tokens)
        yield decoded._replace(times=times * decoded.times, layer_passes=launches * decoded.layer_passes)


def dora_bytes(config: RunConfig, shape: ModelShape) -> float:
    """Returns the bytes that PEFT moves in one forward to find the length of each row of each adapted weight.

    An identity (in, in) in float32 goes through both matrices, their product is added to the weight, and the sum is
    read once more (peft 0.21 tuners/lora/dora.py): written and read, 8 in^2 + 24 in x out. Each time that the modules
    themselves are called: at every token that is sampled through them.
    """
    if not config.adapter.use_dora:
        return 0.0
    sizes = [shape.linear_sizes[name] for name in config.adapter.targets if name in shape.linear_sizes]
    return trained_set(config, shape).layers * sum(
        8.0 * inputs**2 + 24.0 * inputs * outputs for inputs, outputs in sizes
    )


def _adapter(config: RunConfig, shape: ModelShape) -> int:
    return numbers_in(learning_tensors(config, shape)) + frozen_numbers(config, shape)
