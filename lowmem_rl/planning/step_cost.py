"""What a GRPO step asks of a card, part by part: multiplications, bytes moved, kernels launched.

Counts alone, no speed. N is the number of weights in the linear layers, V x H that of the head, which works on
completion tokens only. A `Scenario` says how long sequences are against their limits, and how many groups are
learnt from.
Our engine reads each distinct prompt once, and a waiting row takes the slot of a finished one; `generate` gives every
row its own copy of the prompt and decodes until the last row of a wave has ended. In the update every row has its own
copy of the prompt, micro-batches are filled with tokens whatever the rows, and dead groups cost nothing.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.lowmem_sampler import PREFILL_TOKENS
from lowmem_rl.memory.workload import engine_of
from lowmem_rl.models.lookup import ModelShape

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes a weight in NF4 with double quantisation: 4.127 bits (QLoRA, arXiv 2305.14314)."""
LOW_BYTES = 2
"""Bytes of a number in the compute type."""
OFFLOAD_SLOWDOWN = 1.02
"""Copying activations to host RAM and back beside the computation: 1.9 % (unsloth.ai/blog/long-context)."""

OWN_LAYERS_LAUNCHES = 2.0
"""Kernels that the host launches for a layer of the model's own modules, over those of merged ones: some 70 to 30,
counted in seven 4-bit linear layers with adapters against four joined ones. On a CPU the whole step of the embedded
model was 4.2 times as long (float32, one x86 core, 2026-11-20)."""

WeightPath = Literal["fused", "expand", "copy"]
"""How the matmul gets its weights: 4-bit as they are, expanded to 16 bit each time, or in 16 bit already."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """One part of a step, done `times` over. Multiplications overlap with `bytes`, expanding with nothing."""

    name: str
    times: float
    flops: float
    bytes: float
    expanded_bytes: float
    """Bytes moved to turn 4-bit weights into 16-bit ones before they are used."""
    layer_passes: float
    """Layers launched by the host: a wait where the card is faster than Python."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a step goes that nobody knows beforehand."""

    filled: float = 1.0
    """Mean length of prompts and completions over their limits."""
    informative: float = 1.0
    """Share of the groups whose rewards differ."""


LONGEST = Scenario()


def step_work(config: RunConfig, shape: ModelShape, course: Scenario = LONGEST) -> Iterator[StepCost]:
    """Yields what one optimizer step of a resolved run takes; a rollout that serves several steps counts in part."""
    grpo, rows = config.grpo, config.rows_per_rollout
    steps_a_rollout = grpo.steps_per_rollout * grpo.passes_per_rollout
    for work in _sampling(config, shape, course, rows, config.rollout_rows, prompts=rows // grpo.group_size):
        yield replace(work, times=work.times / steps_a_rollout)
    micro_batches = config.rows_per_step / config.micro_batch
    for name in _passes_without_gradient(config):
        forward = log_probs(name, shape, update_path(config), *_micro_batch(config))
        yield replace(forward, times=micro_batches / grpo.passes_per_rollout)
    work = update(shape, update_path(config), *_micro_batch(config), checkpointing=config.checkpointing)
    # Under a penalty a row without an advantage has a gradient too.
    live = 1.0 if grpo.beta else course.informative
    yield replace(work, times=max(1.0, micro_batches * course.filled * live))


def evaluation_work(config: RunConfig, shape: ModelShape, course: Scenario = LONGEST) -> Iterator[StepCost]:
    """Yields what all evaluations of a run take: the full one at both ends, the cheap ones in between."""
    full, quick = config.eval.examples, min(config.eval.quick_examples, config.eval.examples)
    between = (config.grpo.steps - 1) // config.eval.every if config.eval.every else 0
    for examples, times in ((full, 2), (quick, between)):
        for work in _sampling(config, shape, course, examples, min(config.eval.batch, examples), prompts=examples):
            yield replace(work, name="evaluation", times=work.times * times)


def decode_path(config: RunConfig, rows: int) -> WeightPath:
    """Returns how weights reach the matmul when a token is decoded for each of `rows` rows.

    Unsloth's 4-bit matrix-vector kernel takes one row; for more it expands (unsloth 2026.10.9 kernels/utils.py;
    some cards take up to four, which waves never are).
    """
    return "fused" if config.model.bits == 4 and rows == 1 else update_path(config)


def update_path(config: RunConfig) -> WeightPath:
    """Returns how weights reach the matmul of many tokens."""
    return "expand" if config.model.bits == 4 else "copy"


def head_params(shape: ModelShape) -> int:
    """Weights of the output head: V H."""
    return shape.vocab_size * shape.hidden_size


def adapter_params(shape: ModelShape, rank: int, targets: Collection[str]) -> int:
    """Weights of an adapter on the targeted linear layers: r (in + out) of each."""
    return shape.num_layers * rank * sum(sum(sizes) for name, sizes in shape.linear_sizes.items() if name in targets)


def kv_bytes_per_token(shape: ModelShape) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.num_layers * shape.key_size * LOW_BYTES


def weight_bytes(shape: ModelShape, path: WeightPath) -> float:
    """Bytes the matmuls read to use every linear weight once."""
    return shape.linear_params * (NF4_BYTES if path == "fused" else LOW_BYTES)


def expanded_bytes(shape: ModelShape, path: WeightPath) -> float:
    """Bytes moved before that: 4-bit weights read, 16-bit ones written."""
    return shape.linear_params * (NF4_BYTES + LOW_BYTES) if path == "expand" else 0.0


def attention_flops(shape: ModelShape, rows: int, tokens: float) -> float:
    """Causal scores and mixes of one forward: 2 L q S^2 a row."""
    return 2.0 * shape.num_layers * shape.query_size * rows * tokens**2


def decode(
    shape: ModelShape, path: WeightPath, adapter: int, rows: float, prompt_tokens: float, steps: float
) -> StepCost:
    """`steps` tokens for each of `rows` rows; the KV cache counts at its mean length, `adapter` is its weights."""
    context = prompt_tokens + steps / 2
    fixed = weight_bytes(shape, path) + LOW_BYTES * (head_params(shape) + adapter)
    return StepCost(
        name="decode",
        times=steps,
        flops=2.0 * (shape.linear_params + head_params(shape)) * rows,
        bytes=fixed + rows * context * kv_bytes_per_token(shape),
        expanded_bytes=expanded_bytes(shape, path),
        layer_passes=shape.num_layers,
    )


def prefill(shape: ModelShape, path: WeightPath, rows: int, prompt_tokens: int) -> StepCost:
    """One forward over the prompts of a wave: 2N a token."""
    return log_probs("prefill", shape, path, rows, rows * prompt_tokens, completion_tokens=0)


def log_probs(
    name: str, shape: ModelShape, path: WeightPath, rows: int, tokens: int, completion_tokens: int
) -> StepCost:
    """One forward without gradients over `rows` rows with `tokens` tokens in all: 2N a token."""
    head = 2.0 * head_params(shape) * completion_tokens
    return StepCost(
        name=name,
        times=1,
        flops=2.0 * shape.linear_params * tokens + head + attention_flops(shape, rows, tokens / rows),
        bytes=weight_bytes(shape, path) + head_params(shape) * LOW_BYTES,
        expanded_bytes=expanded_bytes(shape, path),
        layer_passes=shape.num_layers,
    )


def update(
    shape: ModelShape,
    path: WeightPath,
    rows: int,
    tokens: int,
    completion_tokens: int,
    *,
    checkpointing: Literal["unsloth", "plain", "none"],
) -> StepCost:
    """Forward and backward of a micro-batch: 4N a token, 6N where activations are recomputed.

    2N forward and 2N for the gradient of the activations: the base is frozen and gets none of its own.
    Flash attention's backward is 2.5 forwards; a layer's backward launches two forwards' worth of kernels.
    """
    passes = 2 if checkpointing == "none" else 3
    slower = OFFLOAD_SLOWDOWN if checkpointing == "unsloth" else 1.0
    attention = (passes + 1.5) * attention_flops(shape, rows, tokens / rows)
    linear, head = 2.0 * passes * shape.linear_params * tokens, 4.0 * head_params(shape) * completion_tokens
    return StepCost(
        name="update",
        times=1,
        flops=slower * (linear + head + attention),
        bytes=passes * weight_bytes(shape, path) + 2 * LOW_BYTES * head_params(shape),
        expanded_bytes=passes * expanded_bytes(shape, path),
        layer_passes=slower * (passes + 1) * shape.num_layers,
    )


def _sampling(
    config: RunConfig, shape: ModelShape, course: Scenario, rows: int, wave: int, prompts: int
) -> Iterator[StepCost]:
    if engine_of(config, shape) == "lowmem":
        yield from _ours(config, shape, course, rows, wave, prompts)
        return
    prompt, steps, adapter = config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens, _adapter(config, shape)
    for size, waves in _waves(rows, wave):
        yield replace(prefill(shape, update_path(config), size, prompt), times=waves)
        decoded = decode(shape, decode_path(config, size), adapter, size, prompt, steps)
        yield replace(decoded, times=waves * decoded.times)


def _ours(
    config: RunConfig, shape: ModelShape, course: Scenario, rows: int, wave: int, prompts: int
) -> Iterator[StepCost]:
    """Full waves for as long as rows wait, then one whose rows leave until the longest ends."""
    merged, adapter = config.rollout_weights == "merged", _adapter(config, shape)
    launches = OWN_LAYERS_LAUNCHES if config.model.bits == 4 and not merged else 1.0
    prompt, steps = course.filled * config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens
    if merged:
        yield merging(config, shape)
    together = min(prompts, max(PREFILL_TOKENS // ceil(prompt), 1))
    read = prefill(shape, "copy" if merged else update_path(config), together, ceil(prompt))
    yield replace(read, times=prompts / together, layer_passes=launches * read.layer_passes)
    waiting = ceil(rows / wave) - 1
    for alive, tokens, times in ((wave, course.filled * steps, waiting), (course.filled * wave, steps, 1)):
        path = "copy" if merged else decode_path(config, ceil(alive))
        decoded = decode(shape, path, adapter, max(alive, 1), prompt, tokens)
        yield replace(decoded, times=times * decoded.times, layer_passes=launches * decoded.layer_passes)


def merging(config: RunConfig, shape: ModelShape) -> StepCost:
    """The copy of a rollout: every weight expanded once, then read and written once more where layers are joined."""
    moved = 2.0 * LOW_BYTES * shape.linear_params
    return StepCost("merge", 1, 0.0, moved, expanded_bytes(shape, update_path(config)), 1.0 * shape.num_layers)


def _adapter(config: RunConfig, shape: ModelShape) -> int:
    return adapter_params(shape, config.adapter.rank, config.adapter.targets)


def _waves(rows: int, wave: int) -> Iterator[tuple[int, int]]:
    """Yields sizes of waves and how many there are of each; the last one may be smaller."""
    full, rest = divmod(rows, wave)
    if full:
        yield wave, full
    if rest:
        yield rest, 1


def _passes_without_gradient(config: RunConfig) -> Iterator[str]:
    """Yields the passes over a rollout before it is learnt from."""
    if config.grpo.steps_per_rollout * config.grpo.passes_per_rollout > 1:
        yield "old log-probs"  # in step with the sampling TRL takes the current ones
    if config.grpo.beta:
        yield "reference"


def _micro_batch(config: RunConfig) -> tuple[int, int, int]:
    """Returns the rows, tokens and completion tokens of one forward."""
    rows, completion = config.micro_batch, config.grpo.max_completion_tokens
    return rows, rows * (config.grpo.max_prompt_tokens + completion), rows * completion
