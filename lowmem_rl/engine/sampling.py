"""From logits to tokens, with a separate random stream for each row.

Each row draws one uniform number a token from a generator that its stream's name seeds, and takes the token at which
the cumulative distribution exceeds it. What a row samples does not depend on the other rows, on their order or on the
number of waves: finished rows can leave, and others take their slots.
"""

import contextlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from lowmem_rl.engine.sampling_params import GREEDY as GREEDY
from lowmem_rl.engine.sampling_params import SamplingParams as SamplingParams


def stream_names(what: object, rows: int) -> list[str]:
    """Returns the names of the rows' random streams: what is sampled, and the row's number."""
    return [f"{what}/{row}" for row in range(rows)]


def uniform_noise(streams: Sequence[str], tokens: int) -> Tensor:
    """Returns uniform numbers in [0, 1) (rows, tokens); equal stream names, equal numbers."""
    generators = (torch.Generator().manual_seed(_seed(stream)) for stream in streams)
    return torch.stack([torch.rand(tokens, generator=generator) for generator in generators])


@contextlib.contextmanager
def own_random_numbers(stream: str) -> Iterator[None]:
    """Seeds torch's global generators by a stream's name within the block: `generate` draws from those alone."""
    with torch.random.fork_rng():
        torch.manual_seed(_seed(stream))
        yield


def _seed(stream: str) -> int:
    return int.from_bytes(blake2b(stream.encode(), digest_size=8).digest(), "big") >> 1


def sample_token(
    logits: Tensor, noise: Tensor, params: SamplingParams, seen: Tensor | None = None, forced: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns each row's token and its log-probability under the temperature alone, both (rows,).

    `logits` (rows, vocabulary) are in float32, `noise` is (rows,). `seen` (rows, tokens) holds the ids that the
    repetition penalty counts, and is only needed for that. `forced` (rows,) replace the sampled tokens.
    """
    log_probs = (logits / params.temperature).log_softmax(-1)
    scores, sampled_from = logits, log_probs
    if params.repetition_penalty != 1.0:
        from transformers import RepetitionPenaltyLogitsProcessor

        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(seen, logits)
        sampled_from = (scores / params.temperature).log_softmax(-1)
    # Sampled in a replay too: it has to take as long.
    tokens = scores.argmax(-1) if params.greedy else _inverse_cdf(_filtered(sampled_from, params), noise)
    tokens = tokens if forced is None else forced
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]


def _inverse_cdf(log_probs: Tensor, noise: Tensor) -> Tensor:
    """Returns the token of each row of `log_probs` (rows, vocabulary) at which the cumulative sum exceeds `noise`."""
    # In double precision the product stays below the total, so that a token without probability is never returned.
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    targets = noise.double()[:, None] * cumulative[:, -1:]
    # NaN exceeds nothing: the last token is returned, and its log-probability shows what happened.
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=log_probs.shape[-1] - 1)


def _filtered(log_probs: Tensor, params: SamplingParams) -> Tensor:
    """Returns `log_probs` (rows, vocabulary) with minus infinity for the tokens that are filtered out."""
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    # In transformers' order: each filter sees what the one before has left.
    if params.top_k:
        log_probs = TopKLogitsWarper(params.top_k)(None, log_probs)
    if params.top_p < 1.0:
        log_probs = TopPLogitsWarper(params.top_p)(None, log_probs)
    if params.min_p is not None:
        log_probs = MinPLogitsWarper(params.min_p)(None, log_probs)
    return log_probs
