"""What a chat template can use: all that transformers gives it, in a sandbox."""

from datetime import datetime
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.jinja_environment import compile_template
from lowmem_rl.chat_templates.template_files import TemplateFile
from lowmem_rl.errors import TaskError

TURNS = [{"role": "user", "content": "<b>é'"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]


def render(text: str, **tokens: str) -> str:
    return compile_template(TemplateFile(text, tokens, Path("a.jinja")))(TURNS, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>é\'"}'),
        ("{{ {'b': 1, 'a': 'é'} | tojson(indent=1, sort_keys=True) }}", '{\n "a": "é",\n "b": 1\n}'),
        ("{{ {'a': 'é'} | tojson(ensure_ascii=True, separators=(',', ':')) }}", '{"a":"\\u00e9"}'),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}!", "2!"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{% endgeneration %}{{ x }}", "1"),
        ("{%- generation -%} a {%- endgeneration -%} b", "ab"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}2{% break %}{% endfor %}", "2"),
        ("{{ strftime_now('%Y') }}", datetime.now().strftime("%Y")),
        ("{{ tools is none }} {{ documents is none }} {{ tools is defined }}", "True True True"),
        ("{{ bos_token }}|{{ eos_token }}|{{ eos_token is defined }}", "<s>||False"),
        ("{% if add_generation_prompt %}\n  go\n{% endif %}", "  go\n"),
        ("  {% if true %}\nx{% endif %}", "x"),
        ("{{ messages[0].content.upper() }}", "<B>É'"),
        ("{{ messages | map(attribute='role') | join(',') }}", "user,assistant,user"),
    ],
)  # fmt: skip
def test_a_template_finds_what_transformers_gives_it(text: str, rendered: str) -> None:
    assert render(text, bos_token="<s>") == rendered


def test_a_template_can_refuse() -> None:
    with pytest.raises(Exception, match="not like this"):
        render("{{ raise_exception('not like this') }}")


@pytest.mark.parametrize(
    "text", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{% for i in range(10**9) %}{% endfor %}"]
)
def test_a_template_cannot_reach_beyond_its_sandbox(text: str) -> None:
    with pytest.raises(Exception, match="unsafe|not safely callable|Range too big"):
        render(text)


@pytest.mark.parametrize("text", ["a\n{% if %}", "a\n{{ messages[0", "a\n{% endfor %}", "a\n{{ 1 | unknown_filter }}"])
def test_a_broken_template_is_named_with_its_line(text: str) -> None:
    with pytest.raises(TaskError, match="The chat template in a.jinja is broken, line 2: ") as caught:
        render(text)
    assert caught.value.hint
