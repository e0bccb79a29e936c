"""`Example`: what a task yields and a reward receives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]
"""One turn of a conversation: `{"role": "system" | "user" | "assistant", "content": text}`."""


@dataclass(frozen=True, slots=True)
class Example:
    """One problem with its gold answer. `answer` is never empty."""

    id: str
    prompt: tuple[Message, ...]
    answer: str
    level: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def golds(self) -> tuple[str, ...]:
        """The gold answer, and any other that is accepted: the texts in `extra["accepted_answers"]`."""
        others = self.extra.get("accepted_answers", ())
        texts = others if isinstance(others, tuple | list) else ()
        return (self.answer, *(text for text in texts if isinstance(text, str) and text != self.answer))

    @property
    def question(self) -> str:
        """The last user turn: the question, without instructions or few-shot turns."""
        return next((m["content"] for m in reversed(self.prompt) if m["role"] == "user"), "")
