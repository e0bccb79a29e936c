"""Conversations as prompts, in the forms in which data sets hold them.

A list of messages: `role`, `content` (OpenAI, Hugging Face, verl) or `from`, `value` (ShareGPT). `content` is a text or
a list of parts, `{"type": "text", "text": "..."}`. In a table of texts the list is JSON.
"""

import json
from collections.abc import Mapping
from typing import Any

from lowmem_rl.example import Message
from lowmem_rl.tasks.source_row import SourceRow, is_encodable
from lowmem_rl.tasks.task import ROLES

_ROLES = dict(zip(ROLES, ROLES, strict=True)) | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
}
"""Names of the roles in ShareGPT's, Gemma's and OpenAI's conversations."""


def is_conversation(value: Any) -> bool:
    """Returns whether a value is a list, or a text that holds one of objects as JSON."""
    return isinstance(value, list | tuple) or isinstance(messages_in(value), list)


def messages_in(value: Any) -> Any:
    """Returns the messages that a text holds as JSON; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] == "[" and "{" in value[:20]:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def read_turns(row: SourceRow, column: str) -> tuple[Message, ...]:
    """Returns a column's conversation up to the user's last turn: a reply after it is what the model shall write.

    Raises `TaskError` for anything else.
    """
    messages = messages_in(row.value(column))
    if not isinstance(messages, list | tuple) or not messages:
        fix = 'It takes a list of messages: [{"role": "user", "content": "..."}].'
        raise row.unusable(f"column {column!r} is {messages!r:.80}", fix)
    turns = [_turn(row, message) for message in messages]
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns or turns[-1]["role"] != "user":
        raise row.unusable(f"the last message in {column!r} is not the user's", "It ends with the question.")
    return tuple(turns)


def _turn(row: SourceRow, message: Any) -> Message:
    values = message if isinstance(message, Mapping) else {}
    role = _ROLES.get(str(values.get("role") or values.get("from")).lower())
    content = text_of(values.get("content") or values.get("value"))
    if role is None or content is None or not content.strip() or not is_encodable(content):
        fix = 'A message is {"role": "user", "content": "..."}, of text alone.'
        raise row.unusable(f"{message!r:.80} is not a message", fix)
    return {"role": role, "content": content}


def text_of(content: Any) -> str | None:
    """Returns the text of a message's content, a text or a list of parts; None if a part is not text."""
    if not isinstance(content, list | tuple):
        return content if isinstance(content, str) else None
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else None
