"""What a model's chat template opens the assistant's turn with, read from its files, without transformers."""

import json
from pathlib import Path
from typing import Any

from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY, cached_snapshot
from lowmem_rl.prompts import prefill_of


def prefill_of_model(name: str, revision: str | None = None) -> str | None:
    """Returns the opening, "" where there is none; None where the template is not on this disk or unreadable."""
    template = _template(name, revision)
    return None if template is None else _prefill(template)


def _template(name: str, revision: str | None) -> str | None:
    directory = _directory(name, revision)
    if directory is None:
        return None
    if (file := directory / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    settings = directory / "tokenizer_config.json"
    try:
        template = json.loads(settings.read_text("utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return template if isinstance(template, str) else None


def _directory(name: str, revision: str | None) -> Path | None:
    if name == TINY:
        return TINY_DIRECTORY
    path = Path(name).expanduser()
    return path if path.is_dir() else cached_snapshot(name, revision)


def _prefill(template: str) -> str | None:
    """Renders one empty question in jinja's sandbox, as transformers does; jinja comes with torch."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    messages = [{"role": "user", "content": ""}]
    try:
        compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        rendered = compiled.render(messages=messages, add_generation_prompt=True, **_TEMPLATE_NAMES)
    except (TemplateError, TypeError, ValueError):
        return None
    return prefill_of(rendered)


_TEMPLATE_NAMES: dict[str, Any] = {"bos_token": "", "eos_token": "", "tools": None, "strftime_now": lambda form: ""}
