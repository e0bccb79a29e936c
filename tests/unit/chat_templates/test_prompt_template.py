"""The form in which a chat template takes conversations."""

import re
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.jinja_environment import compile_template
from lowmem_rl.chat_templates.prompt_template import PromptTemplate, fit_template
from lowmem_rl.chat_templates.template_files import TemplateFile
from lowmem_rl.errors import TaskError
from lowmem_rl.prompts import conversation

EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
OPEN = "{% if add_generation_prompt %}<assistant>{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
USERS_ONLY = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}" + OPEN
PARTS = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}" + OPEN

MISTRAL = (
    "{% for m in messages %}{{ ('[Q]' ~ m.content ~ '[/Q]') if m.role == 'user' else ' ' ~ m.content }}{% endfor %}"
)


def template(text: str) -> PromptTemplate:
    return fit_template("some/model", compile_template(TemplateFile(text, {}, Path("a.jinja"))))


@pytest.mark.parametrize("text", [NO_SYSTEM + EACH + OPEN, USERS_ONLY])
def test_an_instruction_that_a_template_refuses_or_drops_is_in_the_users_turn(text: str) -> None:
    found = template(text)
    asked = found.render(conversation("Why?", "boxed"))
    assert re.fullmatch(r"<user>Please reason .*\\boxed\{\}\.\n\nWhy\?<assistant>", asked)
    assert found.render(conversation("Why?", "bare")) == "<user>Why?<assistant>"
    assert "takes no system message" in " ".join(found.notes())


def test_a_template_of_parts_gets_parts() -> None:
    found = template(PARTS)
    assert found.render(conversation("Why?", "bare")) == "<user>Why?<assistant>"
    assert found.form.takes_system
    assert not found.form.takes_text


def test_of_two_system_messages_none_is_lost() -> None:
    first_only = (
        "{{ messages[0].content }}{% for m in messages[1:] %}<{{ m.role }}>{% endfor %}{{ messages[-1].content }}"
    )
    two = ({"role": "system", "content": "A"}, {"role": "system", "content": "B"}, {"role": "user", "content": "C"})
    assert template(first_only + OPEN).render(two) == "A\n\nB<user>C<assistant>"


def test_an_instruction_that_a_template_would_change_is_in_the_users_turn() -> None:
    switch = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'system' %}{{ m.content.replace('/think', '') }}{% else %}{{ m.content }}{% endif %}{% endfor %}"  # noqa: E501
    found = template(switch + OPEN)
    boxed, thinking = (conversation("Why?", name) for name in ("boxed", "think_boxed"))
    assert found.render(boxed).startswith("<system>Please reason")
    assert found.render(thinking).startswith("<user>First think about the problem within <think> </think> tags")
    assert [found.moves_system(prompt) for prompt in (boxed, thinking)] == [False, True]
    assert [turn["role"] for turn in found.fit(thinking)] == ["user"]


@pytest.mark.parametrize(
    ("end", "prefill", "closed"),
    [
        ("<think>\n", "<think>\n", ""),
        ("<think>", "<think>", ""),
        ("<think>\n\n</think>\n\n", "", "<think>\n\n</think>"),
        ("<think></think>", "", "<think></think>"),
        ("<seed:think></seed:think>", "", "<seed:think></seed:think>"),
        ("[THINK][/THINK]", "", "[THINK][/THINK]"),
        ("", "", ""),
        ("<a>", "", ""),
    ],
)
def test_how_a_template_opens_or_closes_the_thoughts_is_found(end: str, prefill: str, closed: str) -> None:
    found = template(EACH + "{% if add_generation_prompt %}<assistant>" + end + "{% endif %}")
    assert (found.prefill, found.closed_thoughts) == (prefill, closed)
    assert any("closes the thoughts already" in note for note in found.notes()) is bool(closed)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (EACH + OPEN, ""),
        (EACH, "<assistant>"),
        ("{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</>\n{% endfor %}", "<assistant>\n"),
        (MISTRAL, ""),
        (EACH + "<assistant>", ""),
        ("{{ messages[0].content }}{{ messages[1].content }}", ""),
    ],
)  # fmt: skip
def test_a_template_that_ignores_add_generation_prompt_is_reported_if_its_turns_have_a_header(text, header) -> None:
    found = template(text)
    assert found.missing_header == header
    assert any("ignores add_generation_prompt" in note for note in found.notes()) is bool(header)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "a question is not in what it renders"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[7].content.parts }}", "no element 7"),
        ("{{ 'a' * 10**15 }}", "MemoryError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ messages.foo() }}", "'list object' has no attribute 'foo'"),
    ],
)
def test_a_template_that_cannot_show_a_question_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TaskError, match="The chat template of some/model cannot render a question: ") as caught:
        template(text)
    assert reason in str(caught.value)
    assert caught.value.hint


def test_a_prompt_that_a_template_refuses_is_named_by_its_turns() -> None:
    alternating = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Alternate.') }}{% endif %}{% endfor %}"  # noqa: E501
    found = template(alternating + EACH + OPEN)
    with pytest.raises(TaskError, match="refuses a prompt of the turns user, user: Alternate\\.$"):
        found.render([{"role": "user", "content": "A"}, {"role": "user", "content": "B"}])
