"""Which engine samples, with which weights, and why: decided once a run, on the loaded model and this machine.

Our engine is used for every model whose layers it knows, if it agrees here with the model's own forward; on a GPU it
must also be the faster one. Otherwise transformers' `generate` samples (on a GPU, Unsloth's rewriting of it).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.continuous_batching import SampledCompletion, StoppingCriteria, sample
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.decoder_weights import UnsupportedModel, merged, quantized
from lowmem_rl.engine.hf_generate import answer
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.logprobs import completion_log_probs
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.row_length import TRIAL, TRIAL_TOKENS, training_row
from lowmem_rl.engine.sampling import GREEDY

Weights = Literal["merged", "quantized"]

_MAX_GAP_FP32, _MAX_GAP_16BIT = 1e-3, 0.05
"""Mean difference, in nats a token, that rounding explains: 2e-6 was seen in float32 (embedded model, 2026-11-20);
16-bit logits of about 20 have steps of 0.02 to 0.12."""


@dataclass(frozen=True, slots=True)
class SamplingBackend:
    """What samples, and why; `tokens_per_s` of each engine if both were timed."""

    engine: Literal["lowmem", "generate", "vllm"]
    weights: Weights | None
    reason: str
    tokens_per_s: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        engine = f"{self.engine}, {self.weights} weights" if self.weights else self.engine
        return f"{engine} ({self.reason})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def choose(policy: Policy, config: RunConfig) -> SamplingBackend:
    """Returns what samples in a run of `config`."""
    wanted = config.rollout.engine
    if wanted == "vllm" or wanted == "generate":
        return SamplingBackend(wanted, None, "named in the config")
    try:
        with policy.without_dropout():
            found = _tried(policy, config, config.rollout_weights)
            # As in a run: if the merged copy is off, the model's own weights may still be right.
            is_off = found.engine == "generate" and not found.tokens_per_s
            return _tried(policy, config, "quantized") if is_off and config.rollout_weights == "merged" else found
    except UnsupportedModel as error:
        return SamplingBackend("generate", None, f"our engine does not know this model: {error}")


def build(policy: Policy, weights: Weights | None, max_tokens: int, kept: KeptCopies | None = None) -> Decoder:
    """Returns the decoder over the policy's present weights for rows of up to `max_tokens` tokens.

    Merged weights of frozen layers are taken from `kept`. Raises `UnsupportedModel` for layers that it does not know.
    """
    return merged(policy.model, max_tokens, kept) if weights == "merged" else quantized(policy.model, max_tokens)


def logprob_gap(
    policy: Policy, prompts: Sequence[Sequence[int]], sampled: Sequence[SampledCompletion], temperature: float = 1.0
) -> float:
    """Returns the mean distance, in nats, of the sampled tokens' log-probs from those under the training weights."""
    rows = [(prompt, row.ids) for prompt, row in zip(prompts, sampled, strict=True)]
    ours = chain.from_iterable(row.log_probs for row in sampled)
    theirs = chain.from_iterable(completion_log_probs(policy, rows, temperature=temperature))
    gaps = [abs(one - other) for one, other in zip(ours, theirs, strict=True)]
    return sum(gaps) / len(gaps)


def max_gap(policy: Policy) -> float:
    """Returns the gap, in nats a token, above which the sampler is no longer the policy."""
    return _MAX_GAP_FP32 if policy.device.dtype == "float32" else _MAX_GAP_16BIT


def _tried(policy: Policy, config: RunConfig, weights: Weights) -> SamplingBackend:
    """Returns our engine if it is right with these weights and, if it must be, faster. Raises `UnsupportedModel`."""
    decoder, rows = build(policy, weights, training_row(config)), config.grpo.group_size
    prompts = [policy.tokenize(TRIAL)] * rows
    limits = StoppingCriteria(frozenset(), TRIAL_TOKENS, rows)
    gap = logprob_gap(policy, prompts[:1], sample(decoder, prompts[:1], ["trial"], GREEDY, limits))
    if not gap <= max_gap(policy):  # NaN too
        return SamplingBackend(
            "generate", None, f"our engine's log-probs differ by {gap:.2g} nats from the model's own"
        )
    ours = SamplingBackend("lowmem", weights, f"log-probs differ by {gap:.1g} nats from the model's own")
    if config.rollout.engine == "lowmem" or not policy.device.is_gpu:
        return ours

    def sample_ours() -> int:
        return sum(len(row.ids) for row in sample(decoder, prompts, ["trial"] * rows, GREEDY, limits))

    def sample_theirs() -> int:
        found = answer(policy, [TRIAL] * rows, GREEDY, max_tokens=TRIAL_TOKENS, batch=rows)
        return sum(completion.tokens for completion in found)

    speeds = {"lowmem": _tokens_per_s(sample_ours), "generate": _tokens_per_s(sample_theirs)}
    if speeds["lowmem"] >= speeds["generate"]:
        return replace(ours, tokens_per_s=speeds)
    return SamplingBackend("generate", None, "faster than our engine on this card", speeds)


def _tokens_per_s(sample_tokens: Callable[[], int]) -> float:
    """Times the second call: the first one builds buffers and compiles."""
    sample_tokens()
    began = time.monotonic()
    return sample_tokens() / (time.monotonic() - began)
