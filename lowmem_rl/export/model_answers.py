"""Greedy answers and their likeliest tokens: plain torch and transformers, the same for every model in a proof."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

NEAR = 4
"""Likeliest tokens that are kept at each place."""
_GREEDY = {
    "do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
}  # fmt: skip
"""All of `generate`'s settings: what is left out comes from the model's generation_config."""


@dataclass(frozen=True, slots=True)
class ExportPrompts:
    """Prompts as token ids, and how they are answered: `batch` at once, up to a stop id or `max_tokens`."""

    prompts: list[list[int]]
    stop_ids: list[int]
    pad_id: int
    max_tokens: int
    batch: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy completion: its ids (tokens), a stop id last unless the limit cut it off.

    `near` (tokens, NEAR) are the likeliest ids at each place, `log_probs` (tokens, NEAR) theirs in nats.
    """

    ids: list[int]
    near: list[list[int]]
    log_probs: list[list[float]]


def answer_greedily(model: Any, asked: ExportPrompts) -> Iterator[Answer]:
    """Yields one answer a prompt, in order, through transformers' `generate`."""
    for start in range(0, len(asked.prompts), asked.batch):
        yield from _answer_batch(model, asked.prompts[start : start + asked.batch], asked)


def read_again(model: Any, prompt: Sequence[int], answer: Answer) -> list[list[float]]:
    """Returns the log-probabilities of an answer's near ids (tokens, NEAR), read whole, alone and without a cache."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = torch.tensor([[*prompt, *answer.ids]], device=model.device)
    with torch.inference_mode():
        # The logits of the prompt's places would be the largest tensor of all.
        hidden = causal.model(input_ids=ids, use_cache=False)[0][0, len(prompt) - 1 : -1]
        log_probs = causal.lm_head(hidden).float().log_softmax(-1)
        return log_probs.gather(-1, torch.tensor(answer.near, device=model.device)).tolist()


class _NearTokens(LogitsProcessor):
    """Keeps the likeliest tokens of each step, (rows, NEAR), and changes nothing."""

    def __init__(self) -> None:
        self.near: list[torch.Tensor] = []
        self.log_probs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        log_probs, near = scores.float().log_softmax(-1).topk(NEAR)
        self.near.append(near)
        self.log_probs.append(log_probs)
        return scores


def _answer_batch(model: Any, prompts: Sequence[Sequence[int]], asked: ExportPrompts) -> Iterator[Answer]:
    width, kept = max(map(len, prompts)), _NearTokens()
    ids = [[asked.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]  # padded on the left
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=asked.max_tokens,
            eos_token_id=asked.stop_ids,
            pad_token_id=asked.pad_id,
            logits_processor=LogitsProcessorList([kept]),
            **_GREEDY,
        )
    near, log_probs = torch.stack(kept.near, 1).tolist(), torch.stack(kept.log_probs, 1).tolist()
    for row, new in enumerate(output[:, width:].tolist()):
        end = next((place + 1 for place, token in enumerate(new) if token in asked.stop_ids), len(new))
        yield Answer(new[:end], near[row][:end], log_probs[row][:end])
