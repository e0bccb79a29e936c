"""The receiver's side of the proof, in a process of its own: plain transformers and peft, from the exported files.

Unsloth rewrites the classes of both when it is imported, so the process that trained cannot be this one.
"""

from collections.abc import Mapping
from typing import Any

from lowmem_rl.export.model_answers import Answer, ExportPrompts, answer_greedily, read_again
from lowmem_rl.export.plain_loader import BaseModelSpec, load_adapted, load_plain
from lowmem_rl.workers import serve


def receive(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the exported model in `folder` says to `messages`, and how it reads the `trained` answers.

    An order with a `base` is for an adapter on it.
    """
    from transformers import AutoTokenizer

    folder, base = order["folder"], order["base"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [_tokenize(tokenizer, messages) for messages in order["messages"]]
    model = (
        load_adapted(BaseModelSpec(**base), folder) if base else load_plain(BaseModelSpec(folder, None, None, "auto"))
    )
    answers = list(answer_greedily(model, ExportPrompts(**order["asked"] | {"prompts": prompts})))
    trained = [Answer(**answer) for answer in order["trained"]]
    return {
        "prompts": prompts,
        "answers": [answer.to_json() for answer in answers],
        "texts": [_text(tokenizer, answer, order) for answer in answers],
        "read_own": _read(model, prompts, answers),
        "read_trained": _read(model, order["asked"]["prompts"], trained),
    }


def _tokenize(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _text(tokenizer: Any, answer: Answer, order: Mapping[str, Any]) -> str:
    """Returns the assistant's whole turn: what the template opened with, then the tokens before the stop."""
    ids = answer.ids[:-1] if answer.ids[-1] in order["asked"]["stop_ids"] else answer.ids
    return str(order["prefill"] + tokenizer.decode(ids, skip_special_tokens=True))


def _read(model: Any, prompts: list[list[int]], answers: list[Answer]) -> list[list[list[float]]]:
    return [read_again(model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


if __name__ == "__main__":
    serve(receive)
