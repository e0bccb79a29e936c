"""Compiles chat templates with all that transformers gives them, in jinja's sandbox.

Source: transformers 5, utils/chat_template_utils.py, `_cached_compile_jinja_template` and `render_jinja_template`.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from lowmem_rl.chat_templates.prompt_template import ApplyTemplate, in_one_line
from lowmem_rl.chat_templates.template_files import TemplateFile
from lowmem_rl.errors import TaskError


def compile_template(file: TemplateFile) -> ApplyTemplate:
    """Returns the template as a function. Raises `TaskError` if it is not a jinja template."""
    from jinja2 import TemplateSyntaxError

    try:
        compiled = _environment().from_string(file.text)
    except TemplateSyntaxError as error:
        what = f"The chat template in {file.path} is broken, line {error.lineno}: {in_one_line(error)}."
        raise TaskError(what, hint=_FIX) from error
    except Exception as error:  # jinja's parser lets RecursionError and others through
        raise TaskError(f"The chat template in {file.path} is broken: {in_one_line(error)}.", hint=_FIX) from error

    def apply(messages: Sequence[Any], *, add_generation_prompt: bool) -> str:
        given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        return str(compiled.render(messages=list(messages), **given, **file.special_tokens))

    return apply


_FIX = "Take the chat_template.jinja of the model's own repository, or correct the file."


@cache
def _environment() -> Any:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json  # jinja's own escapes what HTML reserves
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation_tag() -> type[Any]:
    """Returns the extension for `{% generation %}`, the mark around what the assistant writes: it renders its body."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012  as jinja declares it

        def parse(self, parser: Any) -> nodes.Node:
            # A call block, as in transformers: names that are set inside stay inside.
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return str(caller())

    return GenerationTag
