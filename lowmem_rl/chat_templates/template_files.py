"""Reads a model's chat template from its files as transformers does, without transformers.

Source: transformers 5, tokenization_utils_base.py, `_from_pretrained` and `get_chat_template`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.errors import TaskError
from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FETCH = "Fetch the file again, or put the model's chat_template.jinja into its directory."


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A chat template, the special tokens that it can name, and the file that holds it."""

    text: str
    special_tokens: Mapping[str, str]
    path: Path


def model_directory(name: str, revision: str | None = None) -> Path | None:
    """Returns the directory of a model's files, None if it is not on this disk."""
    path = TINY_DIRECTORY if name == TINY else Path(name).expanduser()
    return path if path.is_dir() else cached_snapshot(name, revision)


def find_template(directory: Path) -> TemplateFile | None:
    """Returns the template that transformers takes when no tools are used, None if there is none.

    Raises `TaskError` for a broken file, and for named templates without a default one.
    """
    config = directory / "tokenizer_config.json"
    settings = _read_object(config)
    path, found = _template_of(directory, settings)
    if not found:
        return None
    if not isinstance(found, str):
        what = f"{path} holds a chat template of type {type(found).__name__}, not text."
        raise TaskError(what, hint=_FETCH)
    return TemplateFile(found, _special_tokens(directory, settings), path)


def _template_of(directory: Path, settings: Mapping[str, Any]) -> tuple[Path, Any]:
    """Returns a template and its file. Files of their own come before the entry in the tokenizer's settings."""
    file, folder = directory / "chat_template.jinja", directory / "additional_chat_templates"
    if file.is_file():
        return file, _read(file)
    if named := {other.stem: other for other in sorted(folder.glob("*.jinja"))}:
        path: Path = _default(folder, named)
        return path, _read(path)
    path, entry = directory / "tokenizer_config.json", settings.get("chat_template")
    if isinstance(entry, list):
        return path, _default(
            path, {str(one.get("name")): one.get("template") for one in entry if isinstance(one, dict)}
        )
    return path, entry


def _default(path: Path, named: Mapping[str, Any]) -> Any:
    """Returns the default of several templates. Raises `TaskError` if there is none."""
    if "default" in named:
        return named["default"]
    what = f"{path} holds the chat templates {', '.join(sorted(named)) or 'none'}, and none of them is the default."
    raise TaskError(what, hint="Put the one to train with into the model's directory, as chat_template.jinja.")


def _special_tokens(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tokens by the names that a template uses; a token that is null has no name."""
    older = {} if "added_tokens_decoder" in settings else _read_object(directory / "special_tokens_map.json")
    extra = settings.get("extra_special_tokens")
    named = {key: value for key, value in settings.items() if key.endswith("_token") and isinstance(value, str)}
    merged = {**settings, **older}
    common = {key: merged[key] for key in _SPECIAL_TOKENS if key in merged}
    given = named | (extra if isinstance(extra, dict) else {}) | common
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in given.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(file)) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{file} is not JSON: {error}.", hint=_FETCH) from error
    return content if isinstance(content, dict) else {}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read as text: {error}.", hint=_FETCH) from error
