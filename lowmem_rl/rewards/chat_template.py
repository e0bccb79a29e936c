"""Reads from a model's files how its chat template opens the assistant's turn, without transformers."""

import json
from pathlib import Path

from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY, cached_snapshot
from lowmem_rl.prompts import prefill_of


def prefill_of_model(name: str, revision: str | None = None) -> str | None:
    """Returns the opening, "" if there is none; None if the template is not on this disk or not readable.

    Renders one empty question in jinja's sandbox, as transformers does.
    """
    template = _template(name, revision)
    if template is None:
        return None
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    names = {"bos_token": "", "eos_token": "", "tools": None, "strftime_now": lambda form: ""}
    messages = [{"role": "user", "content": ""}]
    try:
        compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        return prefill_of(compiled.render(messages=messages, add_generation_prompt=True, **names))
    except (TemplateError, TypeError, ValueError):
        return None


def _template(name: str, revision: str | None) -> str | None:
    path = TINY_DIRECTORY if name == TINY else Path(name).expanduser()
    directory = path if path.is_dir() else cached_snapshot(name, revision)
    if directory is None:
        return None
    if (file := directory / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    try:
        template = json.loads((directory / "tokenizer_config.json").read_text("utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return template if isinstance(template, str) else None
