"""Makes an arm take given tokens: the model does all the work of sampling, and what it picks is replaced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lowmem_rl.example import Example
from lowmem_rl_bench.step.bench_workload import BenchWorkload, Ids

Choose = Callable[[Tensor, int], Tensor]
"""(logits (rows, vocabulary), number of the token in its row) -> the token of each row."""


@dataclass
class SamplingCounts:
    """Work that sampling did in one step."""

    row_steps: int = 0
    """Tokens that were picked, those of finished rows too."""
    decode_steps: int = 0
    prefill_tokens: int = 0
    """Prompt tokens read, padding included."""
    attended: int = 0
    """Keys that the picked tokens' queries were held against, masked ones too: the quadratic part."""

    def restart(self) -> None:
        self.row_steps = self.decode_steps = self.prefill_tokens = self.attended = 0

    def picked(self, rows: int) -> None:
        self.row_steps += rows
        self.decode_steps += 1


@dataclass
class RecordedCompletions:
    """The completions and rewards of a workload, found by prompt or by example, each in the rows' order."""

    workload: BenchWorkload
    by_prompt: dict[Ids, Sequence[Ids]] = field(init=False)
    by_example: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.by_prompt = {group.prompt_ids: group.completions for group in self.workload.groups}
        self.by_example = {group.id: group for group in self.workload.groups}

    __name__ = "recorded"

    @property
    def examples(self) -> dict[str, Example]:
        """The prompts as a task yields them."""
        return {group.id: Example(group.id, group.messages, "recorded") for group in self.workload.groups}

    def completions(self, prompts: Sequence[Sequence[int]]) -> list[Ids]:
        """Returns each row's completion. Raises `ValueError` for a prompt that is tokenised otherwise than recorded."""
        seen: dict[Ids, int] = {}
        rows = []
        for prompt in map(tuple, prompts):
            if prompt not in self.by_prompt:
                raise ValueError(f"a prompt of {len(prompt)} tokens is none of the recorded ones")
            number = seen[prompt] = seen.get(prompt, -1) + 1
            rows.append(self.by_prompt[prompt][number])
        return rows

    def __call__(
        self, completion_ids: Sequence[Sequence[int]], example_id: Sequence[str], **_: Any
    ) -> list[float | None]:
        """Returns the recorded rewards, as TRL calls a reward. Raises `ValueError` for tokens that are not recorded."""
        seen: dict[str, int] = {}
        rewards: list[float | None] = []
        for ids, key in zip(completion_ids, example_id, strict=True):
            number = seen[key] = seen.get(key, -1) + 1
            group = self.by_example[key]
            if tuple(ids) != group.completions[number]:
                raise ValueError(f"{key}: completion {number} is not the recorded one")
            rewards.append(group.rewards[number])
        return rewards


class ForcedToken(LogitsProcessor):
    """Leaves one token to pick at each row."""

    def __init__(self, choose: Choose, counts: SamplingCounts, width: int) -> None:
        self.choose, self.counts, self.width = choose, counts, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.counts.picked(len(scores))
        self.counts.attended += input_ids.numel()
        tokens = self.choose(scores, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def replace_in_generate(
    model: Any, chooser: Callable[[list[list[int]]], Choose] | None, counts: SamplingCounts
) -> None:
    """Wraps the model's `generate`: `chooser` gets the prompts and says who picks; None leaves the picks alone."""
    generate = model.generate

    def replaced(*args: Any, **kwargs: Any) -> Any:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        counts.prefill_tokens += ids.numel()
        if chooser is not None:
            prompts = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
            kwargs["logits_processor"] = [ForcedToken(chooser(prompts), counts, ids.shape[1])]
        return generate(*args, **kwargs)

    model.generate = replaced


def recorded_choice(recorded: RecordedCompletions, prompts: list[list[int]], device: Any) -> Choose:
    """Returns the choice of the recorded tokens; a finished row gets its stop id again."""
    rows = recorded.completions(prompts)
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *row[-1:] * (longest - len(row))] for row in rows], device=device)
    return lambda scores, number: tokens[:, number]
