"""From logits to tokens, with a random stream of its own for each row.

Row r draws one uniform number a token from a generator seeded by the row alone, and takes the token where the
cumulative distribution passes it. What a row samples does not depend on which rows are sampled beside it, in which
order or in how many waves: finished rows can leave, and others take their place.
"""

import contextlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from lowmem_rl.engine.sampling_params import GREEDY as GREEDY
from lowmem_rl.engine.sampling_params import SamplingParams as SamplingParams


def stream_names(what: object, rows: int) -> list[str]:
    """Returns the names of the rows of one sampling: what it is, and the row's number in it."""
    return [f"{what}/{row}" for row in range(rows)]


def uniform_noise(names: Sequence[str], tokens: int) -> Tensor:
    """Returns a uniform number in [0, 1) for each row and token (rows, tokens); equal names, equal numbers."""
    return torch.stack([_stream(name, tokens) for name in names])


@contextlib.contextmanager
def own_random_numbers(name: str) -> Iterator[None]:
    """Seeds torch's generators by a name for the length of the block: `generate` draws from those alone."""
    with torch.random.fork_rng():
        torch.manual_seed(_seed(name))
        yield


def _stream(name: str, tokens: int) -> Tensor:
    return torch.rand(tokens, generator=torch.Generator().manual_seed(_seed(name)))


def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def sample_token(
    logits: Tensor, noise: Tensor, params: SamplingParams, seen: Tensor | None = None, forced: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns each row's token and its log-probability under the temperature alone, both (rows,).

    `logits` (rows, vocabulary) in float32, `noise` (rows,). `seen` (rows, tokens) holds the ids that the repetition
    penalty counts; only then it is needed. `forced` (rows,) are taken instead of what was picked.
    """
    log_probs = _log_probs(logits, params)
    scores, likely = logits, log_probs
    if params.repetition_penalty != 1.0:
        scores = _penalised(logits, params.repetition_penalty, seen)
        likely = _log_probs(scores, params)
    tokens = scores.argmax(-1) if params.greedy else _inverse_cdf(_filtered(likely, params), noise)
    tokens = tokens if forced is None else forced
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]


def _log_probs(logits: Tensor, params: SamplingParams) -> Tensor:
    return (logits / params.temperature).log_softmax(-1)


def _inverse_cdf(log_probs: Tensor, noise: Tensor) -> Tensor:
    # In double precision the product stays below the total, so that a token without probability is never met.
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    targets = noise.double()[:, None] * cumulative[:, -1:]
    # NaN is passed nowhere: the last token stands for it, and its log-probability says what happened.
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=log_probs.shape[-1] - 1)


def _filtered(scores: Tensor, params: SamplingParams) -> Tensor:
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    # transformers' order: each one sees what the one before has left.
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1.0:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    if params.min_p is not None:
        scores = MinPLogitsWarper(params.min_p)(None, scores)
    return scores


def _penalised(logits: Tensor, penalty: float, seen: Tensor | None) -> Tensor:
    from transformers import RepetitionPenaltyLogitsProcessor

    return RepetitionPenaltyLogitsProcessor(penalty)(seen, logits)
