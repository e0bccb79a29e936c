"""Completions through transformers' `generate`, in batches: if our engine does not know the model, or is not wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lowmem_rl.engine.policy import Policy
from lowmem_rl.engine.sampling import SamplingParams
from lowmem_rl.example import Message


@dataclass(frozen=True, slots=True)
class Completion:
    """The assistant's whole turn, how many tokens were sampled, and whether the limit cut it off."""

    text: str
    tokens: int
    truncated: bool


def answer(
    policy: Policy, prompts: Sequence[Sequence[Message]], params: SamplingParams, *, max_tokens: int, batch: int
) -> Iterator[Completion]:
    """Yields one completion a prompt, in order. Raises `ConfigError` for rows longer than the model was loaded for."""
    settings = settings_of(params) | {"max_new_tokens": max_tokens, "pad_token_id": policy.tokenizer.pad_token_id}
    with policy.inference() as model:
        for start in range(0, len(prompts), batch):
            ids = [policy.tokenize(prompt) for prompt in prompts[start : start + batch]]
            policy.check_row(max(map(len, ids)) + max_tokens)
            inputs = policy.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
            output = model.generate(**inputs, **settings)
            for row in output[:, inputs["input_ids"].shape[1] :].tolist():
                yield completion_of(policy, row)


def settings_of(params: SamplingParams) -> dict[str, Any]:
    """Returns all of `generate`'s sampling settings.

    One that is missing would come from the model's generation_config, in which Qwen2.5-Instruct ships a repetition
    penalty of 1.05 to 1.1 that training does not have.
    """
    common = {"num_beams": 1, "no_repeat_ngram_size": 0, "repetition_penalty": params.repetition_penalty}
    if params.greedy:
        return common | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None}
    chosen = ("temperature", "top_p", "top_k", "min_p")
    return common | {"do_sample": True} | {name: getattr(params, name) for name in chosen}


def completion_of(policy: Policy, row: Sequence[int]) -> Completion:
    """Returns the completion in a row of sampled ids, which may continue after its stop token."""
    stop = policy.stop_ids  # a look-up through three objects, too slow to repeat for each token
    end = next((i for i, token in enumerate(row) if token in stop), None)
    ids = row if end is None else row[:end]
    return Completion(text=policy.complete(ids), tokens=len(ids) + (end is not None), truncated=end is None)
