"""The number of tokens of a prompt: exact if the tokenizer is on this disk, else estimated from the words.

The tokenizer's own library and the chat template are enough for that; no model and no torch is loaded.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lowmem_rl.errors import LowMemError
from lowmem_rl.example import Example, Message
from lowmem_rl.models.lookup import cached_snapshot, model_path
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
    """Returns a counter of tokens as in training, None if tokenizer, template or packages are not on this machine."""
    try:
        path = Path(model_path(model))
    except LowMemError:
        return None
    directory = path if path.is_dir() else cached_snapshot(model, revision)
    if directory is None or not (directory / "tokenizer.json").is_file() or not (template := _template(directory)):
        return None
    try:
        tokenizer = import_module("tokenizers").Tokenizer.from_file(str(directory / "tokenizer.json"))
        render = _renderer(template, _settings(directory))
        render(({"role": "user", "content": "?"},))
    except Exception:  # noqa: BLE001  no package, or files with other content than their names say: estimate instead
        return None
    return lambda prompt: len(tokenizer.encode(render(prompt), add_special_tokens=False).ids)


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


def _settings(directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return settings if isinstance(settings, dict) else {}


def _template(directory: Path) -> str | None:
    file = directory / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else _settings(directory).get("chat_template")
    return template if isinstance(template, str) else None


def _renderer(template: str, settings: dict[str, Any]) -> Callable[[Sequence[Message]], str]:
    """Returns a renderer of prompts like transformers' (utils/chat_template_utils.py): sandboxed, blocks trimmed."""
    sandbox = import_module("jinja2.sandbox").ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    compiled = sandbox.from_string(template)
    special = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = settings.get(name)
        special[name] = str(token.get("content", "") if isinstance(token, dict) else token or "")
    return lambda prompt: str(compiled.render(messages=list(prompt), add_generation_prompt=True, **special))
