"""Makes an arm sample given tokens: the model does all the work of sampling, and the sampled token is replaced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lowmem_rl.example import Example
from lowmem_rl_bench.step.bench_workload import BenchWorkload, Ids

Choose = Callable[[Tensor, int], Tensor]
"""(logits (rows, vocabulary), number of the token in its row) -> the token of each row (rows,)."""


@dataclass
class SamplingCounts:
    """Work of sampling in one step."""

    row_steps: int = 0
    """Tokens that were sampled, including those of finished rows."""
    decode_steps: int = 0
    prefill_tokens: int = 0
    """Prompt tokens read, including padding."""
    attended: int = 0
    """Keys that the sampled tokens' queries were compared with, including masked ones: the quadratic part."""

    def restart(self) -> None:
        self.row_steps = self.decode_steps = self.prefill_tokens = self.attended = 0

    def add_sampled(self, rows: int) -> None:
        self.row_steps += rows
        self.decode_steps += 1


class RecordedCompletions:
    """The completions and rewards of a workload, found by prompt or by example, each in the order of the rows."""

    __name__ = "recorded"

    def __init__(self, workload: BenchWorkload) -> None:
        self._by_prompt = {group.prompt_ids: group for group in workload.groups}
        self._by_example = {group.id: group for group in workload.groups}
        self.examples = {group.id: Example(group.id, group.messages, "recorded") for group in workload.groups}
        """The prompts as a task yields them."""

    def completions(self, prompts: Sequence[Sequence[int]]) -> list[Ids]:
        """Returns each row's completion. Raises `ValueError` if a prompt's tokens are not recorded."""
        seen: dict[Ids, int] = {}
        rows = []
        for prompt in map(tuple, prompts):
            if prompt not in self._by_prompt:
                raise ValueError(f"a prompt of {len(prompt)} tokens is not recorded")
            number = seen[prompt] = seen.get(prompt, -1) + 1
            rows.append(self._by_prompt[prompt].completions[number])
        return rows

    def __call__(
        self, completion_ids: Sequence[Sequence[int]], example_id: Sequence[str], **_: Any
    ) -> list[float | None]:
        """Returns the recorded rewards, called by TRL as a reward. Raises `ValueError` if tokens are not recorded."""
        seen: dict[str, int] = {}
        rewards: list[float | None] = []
        for ids, key in zip(completion_ids, example_id, strict=True):
            number = seen[key] = seen.get(key, -1) + 1
            group = self._by_example[key]
            if tuple(ids) != group.completions[number]:
                raise ValueError(f"{key}: completion {number} is not the recorded one")
            rewards.append(group.rewards[number])
        return rewards


class _ForcedToken(LogitsProcessor):
    """Leaves one possible token in each row."""

    def __init__(self, choose: Choose, counts: SamplingCounts, prompt_width: int) -> None:
        self.choose, self.counts, self.prompt_width = choose, counts, prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Takes ids (rows, length) and logits (rows, vocabulary), returns logits."""
        self.counts.add_sampled(len(scores))
        self.counts.attended += input_ids.numel()
        tokens = self.choose(scores, input_ids.shape[1] - self.prompt_width)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def replace_in_generate(
    model: Any, chooser: Callable[[list[list[int]]], Choose] | None, counts: SamplingCounts
) -> None:
    """Wraps the model's `generate`: `chooser` returns, for the prompts, who chooses the tokens; None changes none."""
    generate = model.generate

    def replaced(*args: Any, **kwargs: Any) -> Any:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        counts.prefill_tokens += ids.numel()
        if chooser is not None:
            prompts = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
            kwargs["logits_processor"] = [_ForcedToken(chooser(prompts), counts, ids.shape[1])]
        return generate(*args, **kwargs)

    model.generate = replaced


def choose_recorded(recorded: RecordedCompletions, prompts: list[list[int]], device: Any) -> Choose:
    """Returns the choice of the recorded tokens; a finished row repeats its stop id."""
    rows = recorded.completions(prompts)
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *row[-1:] * (longest - len(row))] for row in rows], device=device)
    return lambda scores, number: tokens[:, number]


def replayed_batches(
    generate_batch: Callable[..., Any], recorded: RecordedCompletions, counts: SamplingCounts
) -> Callable[..., Any]:
    """Returns a model's `generate_batch` with the recorded tokens in place of those that its requests sample.

    On a GPU the next token is taken on the card, before this: there the cache holds other tokens, of the same lengths.
    """
    from transformers.generation.continuous_batching.requests import RequestState

    update = RequestState.update_and_check_completion

    def replayed(inputs: list[list[int]], **kwargs: Any) -> Any:
        rows = recorded.completions(inputs)
        counts.prefill_tokens += sum(map(len, inputs))

        def replayed_update(state: Any, token_id: int, logprob: float | None) -> Any:
            counts.row_steps += 1
            row = int(state.request_id.removeprefix("req_"))  # each call numbers its requests from 0
            return update(state, rows[row][state.generated_len()], logprob)

        RequestState.update_and_check_completion = replayed_update
        try:
            return generate_batch(inputs, **kwargs)
        finally:
            RequestState.update_and_check_completion = update

    return replayed
