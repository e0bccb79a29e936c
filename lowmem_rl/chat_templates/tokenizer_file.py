"""Encodes text with a model's own tokenizer.json, without transformers."""

from collections.abc import Callable, Sequence
from importlib import import_module

from lowmem_rl.chat_templates.template_files import model_directory
from lowmem_rl.errors import SetupError

Encode = Callable[[str], list[int]]


def encoder_of_model(name: str, revision: str | None = None) -> Encode | None:
    """Returns a function from text to token ids, without special tokens around them.

    Returns None if the file or the package tokenizers is not on this machine.
    """
    directory = model_directory(name, revision)
    if directory is None or not (file := directory / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = import_module("tokenizers").Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001  no package, or a file that it cannot read: it raises plain Exceptions
        return None
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def check_embedded(model: str, ids: Sequence[int], embedded_tokens: int) -> None:
    """Raises `SetupError` if one of the ids is beyond a model's embedding.

    Ids that never occur may be: Gemma 3's image token is, in its text models.
    """
    highest = max(ids, default=0)
    if highest >= embedded_tokens:
        raise SetupError(
            f"The tokenizer of {model} writes the token id {highest}, but the model embeds {embedded_tokens} tokens, "
            f"0 to {embedded_tokens - 1}.",
            hint="Tokenizer and weights are of different models: take both from one repository.",
        )
