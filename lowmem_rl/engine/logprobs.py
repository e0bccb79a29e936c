"""Log-probabilities of given answers under the base weights: what perplexity rewards ask for.

The policy is its own frozen reference: with the adapter off, the weights of the base model are
what computes, and no second model is in memory.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.oom import RowLimit
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.upload import upload
from lowmem_rl.errors import ConfigError, RewardError
from lowmem_rl.example import Message
from lowmem_rl.prompts import THINK_OPEN
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess

HEAD_PLACES = 128
"""Places whose logits are held at once: 80 MB in float32 for 152,000 words, 1.2 GB for a completion of 2048 tokens."""

Encoded = tuple[Sequence[int], Sequence[int]]
"""Ids that are given, and those behind them that are asked about."""


def view_of(policy: Policy, config: RunConfig, limit: RowLimit | None = None) -> ModelAccess:
    """Returns what rewards may ask of the policy; the training micro-batch is what should fit in one forward.

    With a `limit`, fewer rows are tried where it does not.
    """

    def nll(rows: Sequence[AnswerRow]) -> list[float | RewardError]:
        if limit is None:
            return answer_nll(policy, rows, batch=config.micro_batch)
        return limit.run(lambda batch: answer_nll(policy, rows, batch=batch), config.micro_batch)

    return ModelAccess(
        count_tokens=partial(count_tokens, policy),
        max_completion_tokens=config.grpo.max_completion_tokens,
        answer_nll=nll,
    )


def count_tokens(policy: Policy, completion: str) -> int:
    """Returns the tokens of a completion that were sampled: without what the chat template opened the turn with."""
    return len(policy.encode(completion.removeprefix(policy.prefill)))


def answer_nll(policy: Policy, rows: Sequence[AnswerRow], *, batch: int) -> list[float | RewardError]:
    """Returns the mean negative log-likelihood of each row's answer, in nats a token, adapter off.

    One forward for `batch` rows of similar length. A row that is longer than the model was loaded for has an error
    in its place: it costs one score, and not the run.
    """
    encoded = [_encode_row(policy, row) for row in rows]
    nlls: dict[int, float | RewardError] = {
        i: refusal for i, row in enumerate(encoded) if (refusal := _refusal(policy, row))
    }
    by_length = sorted((i for i in range(len(rows)) if i not in nlls), key=lambda i: _tokens(encoded[i]))
    with _reading(policy) as model, model.disable_adapter():
        for start in range(0, len(by_length), batch):
            chosen = by_length[start : start + batch]
            nlls |= zip(chosen, _batch_nll(policy, model, [encoded[i] for i in chosen]), strict=True)
    return [nlls[i] for i in range(len(rows))]


def _refusal(policy: Policy, row: Encoded) -> RewardError | None:
    try:
        policy.check_row(_tokens(row))
    except ConfigError as error:
        return RewardError(str(error), hint=error.hint)
    return None


def completion_log_probs(policy: Policy, rows: Sequence[Encoded], *, temperature: float = 1.0) -> list[list[float]]:
    """Returns the log-probability of each token of (prompt, completion) rows under the training weights, in nats.

    The adapter is on; all rows stand in one forward.
    """
    causal, batch = policy.model.get_base_model(), _batch_of(policy, rows)
    with torch.inference_mode(), policy.without_dropout():
        hidden = causal.model(input_ids=batch, use_cache=False)[0]
        found = [
            _completion_log_probs(causal, states, _answer(ids, row), row, temperature)
            for states, ids, row in zip(hidden, batch, rows, strict=True)
        ]
        log_probs = torch.cat(found).tolist()  # one copy for all rows
    ends = list(accumulate(len(completion) for _, completion in rows))
    return [log_probs[start:end] for start, end in pairwise([0, *ends])]


def _completion_log_probs(
    causal: Any, hidden: torch.Tensor, answer: torch.Tensor, row: Encoded, temperature: float
) -> torch.Tensor:
    found = []
    for states, ids in zip(hidden[_places(row)].split(HEAD_PLACES), answer.split(HEAD_PLACES), strict=True):
        log_probs = (causal.lm_head(states).float() / temperature).log_softmax(-1)
        found.append(log_probs.gather(-1, ids[:, None])[:, 0])
    return torch.cat(found)


def kl_from_base(policy: Policy, rows: Sequence[Encoded]) -> float:
    """Returns the mean KL divergence of the policy from the base weights over the completions' places, in nats a token.

    Exact at each place: summed over the vocabulary, behind what the policy's own (prompt, completion) rows say so far.
    One row at a time, once with the adapter and once without. No completion is empty.
    """
    with torch.inference_mode(), policy.without_dropout():
        totals = torch.stack([_kl_of_row(policy, row) for row in rows]).tolist()
    return float(sum(totals)) / sum(len(completion) for _, completion in rows)


def _kl_of_row(policy: Policy, row: Encoded) -> torch.Tensor:
    """Returns the sum over the completion's places, in float64."""
    causal, base = policy.model.get_base_model(), policy.model.disable_adapter
    ids = _batch_of(policy, [row])
    mine = causal.model(input_ids=ids, use_cache=False)[0][0, _places(row)]
    with base():
        theirs = causal.model(input_ids=ids, use_cache=False)[0][0, _places(row)]
    total = torch.zeros((), dtype=torch.float64, device=ids.device)
    for states, base_states in zip(mine.split(HEAD_PLACES), theirs.split(HEAD_PLACES), strict=True):
        log_probs = causal.lm_head(states).float().log_softmax(-1)
        with base():  # the head may be adapted, too
            base_log_probs = causal.lm_head(base_states).float().log_softmax(-1)
        total += (log_probs.exp() * (log_probs - base_log_probs)).sum()
    return total


def encode_turn(policy: Policy, prompt: Sequence[Message], completion: str, *, truncated: bool) -> Encoded:
    """Returns a prompt and the tokens of a whole turn behind it, the stop token last unless it was cut off."""
    ids = policy.encode(completion.removeprefix(policy.prefill))
    return policy.tokenize(prompt), ids if truncated else [*ids, policy.tokenizer.eos_token_id]


@contextlib.contextmanager
def _reading(policy: Policy) -> Iterator[Any]:
    """Yields the model without gradients; where it is generating already, it is left in that mode afterwards."""
    if policy.model.training:
        with policy.inference() as model:
            yield model
    else:
        with torch.inference_mode():
            yield policy.model


def _encode_row(policy: Policy, row: AnswerRow) -> Encoded:
    # Apart, so that no token spans the border between the answer and what leads to it.
    lead = _behind_prefill(row.lead, policy.prefill)
    return policy.tokenize(row.prompt) + policy.encode(lead), policy.encode(row.answer)


def _behind_prefill(lead: str, prefill: str) -> str:
    """Returns the turn without its opening where the rendered prompt holds that already."""
    return lead.removeprefix(prefill) if lead.startswith(prefill) else lead.removeprefix(THINK_OPEN)


def _batch_nll(policy: Policy, model: Any, rows: Sequence[Encoded]) -> list[float]:
    """Reads a batch once. Padding stands on the right, where no causal model sees it: no mask is needed."""
    causal, batch = model.get_base_model(), _batch_of(policy, rows)
    # The logits of every place would be the largest tensor of all (152,000 numbers a token): only answers get them.
    hidden = causal.model(input_ids=batch, use_cache=False)[0]
    nlls = [
        _answer_nll(causal, states[_places(row)], _answer(ids, row))
        for states, ids, row in zip(hidden, batch, rows, strict=True)
    ]
    return list(torch.stack(nlls).tolist())  # one copy for all rows


def _batch_of(policy: Policy, rows: Sequence[Encoded]) -> torch.Tensor:
    """Returns ids (rows, tokens), padded on the right. Raises `ConfigError` for a row that the model would cut."""
    policy.check_row(max(map(_tokens, rows)))
    ids = [torch.tensor([*before, *answer]) for before, answer in rows]
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=policy.tokenizer.pad_token_id)
    return upload(batch, policy.model.device)


def _tokens(row: Encoded) -> int:
    return len(row[0]) + len(row[1])


def _places(row: Encoded) -> slice:
    """Returns the places that predict the second part's tokens: each one before its token."""
    before, answer = row
    return slice(len(before) - 1, len(before) + len(answer) - 1)


def _answer(ids: torch.Tensor, row: Encoded) -> torch.Tensor:
    """Returns the second part's tokens of a row of the batch."""
    return ids[len(row[0]) : _tokens(row)]


def _answer_nll(causal: Any, states: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(causal.lm_head(states).float(), answer)
