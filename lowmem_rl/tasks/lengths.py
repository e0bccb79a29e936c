"""The number of tokens of a prompt: exact if the tokenizer is on this disk, else estimated from the words.

The tokenizer's own library and the chat template are enough for that; no model and no torch is loaded.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.tokenizer_file import encoder_of_model
from lowmem_rl.example import Example, Message
from lowmem_rl.tasks.task_finding import TaskFinding, level_of

CountTokens = Callable[[Sequence[Message]], int]

_TOKENS_PER_TURN = 6
"""What a chat template adds to each turn: marks, role, line break."""
_PIECE = re.compile(r"[^\W\d_]{1,8}|\S")
"""Digits and signs are tokens of their own, as in Qwen2.5; words are about one token per eight letters."""


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Tokens of a task's prompts."""

    median: int
    longest: int
    limit: int
    over_limit: int
    exact: bool
    """Counted by the tokenizer, not estimated."""


def estimate_tokens(prompt: Sequence[Message]) -> int:
    """Returns about how many tokens a prompt has."""
    pieces = sum(len(_PIECE.findall(message["content"])) for message in prompt)
    return pieces + _TOKENS_PER_TURN * (len(prompt) + 1)


def exact_counter(model: str, revision: str | None = None) -> CountTokens | None:
    """Returns a counter of tokens as in training, None if tokenizer, template or packages are not on this machine.

    Raises `TaskError` for a broken chat template; the counter does so for a prompt that the template refuses.
    """
    template, encode = template_of_model(model, revision), encoder_of_model(model, revision)
    if template is None or encode is None:
        return None
    return lambda prompt: len(encode(template.render(prompt)))


def measure_lengths(examples: Sequence[Example], limit: int, count: CountTokens, *, exact: bool) -> PromptLengths:
    """Returns the lengths of prompts. `examples` may be empty."""
    tokens = sorted(count(example.prompt) for example in examples) or [0]
    over = sum(number > limit for number in tokens)
    return PromptLengths(tokens[len(tokens) // 2], tokens[-1], limit, over, exact)


def check_lengths(lengths: PromptLengths, total: int) -> Iterator[TaskFinding]:
    """Yields a finding for prompts that training would leave out."""
    if lengths.over_limit:
        about = "" if lengths.exact else "about "
        yield TaskFinding(
            level_of(lengths.over_limit, total),
            f"{about}{lengths.over_limit} of {total} prompts are longer than {lengths.limit} tokens and would be left "
            f"out; the longest has {about}{lengths.longest}",
            f"grpo.max_prompt_tokens={lengths.longest} takes all.",
        )
