"""Log-probabilities of given tokens: of answers under the base weights, for perplexity rewards, and of completions.

The policy is its own frozen reference: with the adapter off, the base weights compute, and no second model is in
memory.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.oom import RowLimit
from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.upload import upload
from lowmem_rl.errors import ConfigError, RewardError
from lowmem_rl.example import Message
from lowmem_rl.prompts import THINK_OPEN
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess

_CHUNK_TOKENS = 128
"""Tokens whose logits are held at once: 80 MB in float32 for 152,000 words, 1.2 GB for a completion of 2048 tokens."""

Encoded = tuple[Sequence[int], Sequence[int]]
"""Ids of a context, and the ids after it whose log-probabilities are wanted."""


def view_of(policy: Policy, config: RunConfig, limit: RowLimit | None = None) -> ModelAccess:
    """Returns what rewards may ask of the policy; the training micro-batch is what should fit in one forward.

    With a `limit`, fewer rows are tried if it does not fit.
    """

    def nll(rows: Sequence[AnswerRow]) -> list[float | RewardError]:
        if limit is None:
            return answer_nll(policy, rows, batch=config.micro_batch)
        return limit.run(lambda batch: answer_nll(policy, rows, batch=batch), config.micro_batch)

    return ModelAccess(
        # Sampled tokens alone: without what the chat template opened the turn with.
        count_tokens=lambda completion: len(policy.encode(completion.removeprefix(policy.prefill))),
        max_completion_tokens=config.grpo.max_completion_tokens,
        answer_nll=nll,
    )


def answer_nll(policy: Policy, rows: Sequence[AnswerRow], *, batch: int) -> list[float | RewardError]:
    """Returns the mean negative log-likelihood of each row's answer, in nats a token, adapter off.

    One forward for `batch` rows of similar length. A row that is longer than the model was loaded for gets an error
    instead: it costs one score, not the run.
    """
    encoded, nlls = [], dict[int, float | RewardError]()
    for i, row in enumerate(rows):
        # A rendered prompt may hold the turn's opening already.
        opening = policy.prefill if row.lead.startswith(policy.prefill) else THINK_OPEN
        # Encoded separately, so that no token spans the end of the lead and the start of the answer.
        context = policy.tokenize(row.prompt) + policy.encode(row.lead.removeprefix(opening))
        encoded.append((context, policy.encode(row.answer)))
        try:
            policy.check_row(_length(encoded[i]))
        except ConfigError as error:
            nlls[i] = RewardError(str(error), hint=error.hint)
    by_length = sorted((i for i in range(len(rows)) if i not in nlls), key=lambda i: _length(encoded[i]))
    with _inference(policy) as model, model.disable_adapter():
        for start in range(0, len(by_length), batch):
            chosen = by_length[start : start + batch]
            nlls |= zip(chosen, _batch_nll(policy, model, [encoded[i] for i in chosen]), strict=True)
    return [nlls[i] for i in range(len(rows))]


@contextlib.contextmanager
def _inference(policy: Policy) -> Iterator[Any]:
    """Yields the model without gradients; if it is generating already, it stays in that mode afterwards."""
    if policy.model.training:
        with policy.inference() as model:
            yield model
    else:
        with torch.inference_mode():
            yield policy.model


def _batch_nll(policy: Policy, model: Any, rows: Sequence[Encoded]) -> list[float]:
    causal = model.get_base_model()
    # The logits of all tokens would be the largest tensor (152,000 numbers a token): only answers get them.
    nlls = [
        cross_entropy(causal.lm_head(states).float(), ids) for states, ids in _completion_states(policy, causal, rows)
    ]
    return list(torch.stack(nlls).tolist())  # one copy for all rows


def completion_log_probs(policy: Policy, rows: Sequence[Encoded], *, temperature: float = 1.0) -> list[list[float]]:
    """Returns the log-probability of each token of (prompt, completion) rows under the training weights, in nats.

    The adapter is on; all rows are in one forward.
    """
    causal, found = policy.model.get_base_model(), []
    with torch.inference_mode(), policy.without_dropout():
        for states, ids in _completion_states(policy, causal, rows):
            for part, wanted in zip(states.split(_CHUNK_TOKENS), ids.split(_CHUNK_TOKENS), strict=True):
                log_probs = (causal.lm_head(part).float() / temperature).log_softmax(-1)
                found.append(log_probs.gather(-1, wanted[:, None])[:, 0])
        flat = torch.cat(found).tolist()  # one copy for all rows
    ends = list(accumulate(len(completion) for _, completion in rows))
    return [flat[start:end] for start, end in pairwise([0, *ends])]


def kl_from_base(policy: Policy, rows: Sequence[Encoded], *, batch: int) -> float:
    """Returns the mean KL divergence of the policy from the base weights over completion tokens, in nats a token.

    From the start of a run that started from an adapter (`engine.reference`).
    Exact at each token: summed over the vocabulary, given the policy's own (prompt, completion) row so far. One forward
    for `batch` rows, first all rows with the adapter and then all without: PEFT looks at every layer each time it turns
    one off. No completion is empty.
    """
    with torch.inference_mode(), policy.without_dropout():
        mine = _states_of_rows(policy, rows, batch)
        with policy.model.disable_adapter():
            base = _states_of_rows(policy, rows, batch)
        totals = torch.stack([_kl_of_row(policy, *states) for states in zip(mine, base, strict=True)]).tolist()
    return float(sum(totals)) / sum(len(completion) for _, completion in rows)


def _states_of_rows(policy: Policy, rows: Sequence[Encoded], batch: int) -> list[Tensor]:
    causal = policy.model.get_base_model()
    forwards = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    # Copied, because a view would hold the prompts' states, too.
    return [states.clone() for some in forwards for states, _ in _completion_states(policy, causal, some)]


def _kl_of_row(policy: Policy, mine: Tensor, base: Tensor) -> Tensor:
    """Returns the sum over the completion's tokens, a scalar in float64."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    head = policy.model.get_base_model().lm_head
    is_adapted = isinstance(head, (BaseTunerLayer, AuxiliaryTrainingWrapper))
    total = torch.zeros((), dtype=torch.float64, device=mine.device)
    for states, base_states in zip(mine.split(_CHUNK_TOKENS), base.split(_CHUNK_TOKENS), strict=True):
        log_probs = head(states).float().log_softmax(-1)
        with policy.model.disable_adapter() if is_adapted else contextlib.nullcontext():
            base_log_probs = head(base_states).float().log_softmax(-1)
        total += (log_probs.exp() * (log_probs - base_log_probs)).sum()
    return total


def _completion_states(policy: Policy, causal: Any, rows: Sequence[Encoded]) -> Iterator[tuple[Tensor, Tensor]]:
    """Reads all rows in one forward; yields of each the states (C, hidden) that predict its C last ids, and those (C,).

    Rows are padded on the right, where no causal model sees it: no mask is needed. Raises `ConfigError` for a row that
    the model would cut.
    """
    policy.check_row(max(map(_length, rows)))
    ids = [torch.tensor([*context, *completion]) for context, completion in rows]
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=policy.tokenizer.pad_token_id)
    batch = upload(batch, policy.model.device)
    hidden = causal.model(input_ids=batch, use_cache=False)[0]
    for states, padded, row in zip(hidden, batch, rows, strict=True):
        start, end = len(row[0]), _length(row)
        yield states[start - 1 : end - 1], padded[start:end]


def _length(row: Encoded) -> int:
    return len(row[0]) + len(row[1])


def encode_turn(policy: Policy, prompt: Sequence[Message], completion: str, *, truncated: bool) -> Encoded:
    """Returns the ids of a prompt and of the whole turn after it, the stop token last unless it was cut off."""
    ids = policy.encode(completion.removeprefix(policy.prefill))
    return policy.tokenize(prompt), ids if truncated else [*ids, policy.tokenizer.eos_token_id]
