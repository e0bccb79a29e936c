"""Which of a model's files holds its chat template, and the special tokens that it names."""

import json
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.template_files import find_template
from lowmem_rl.errors import TaskError
from lowmem_rl.models.lookup import TINY


def write(folder: Path, **files: object) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def settings(folder: Path, **values: object) -> None:
    write(folder, tokenizer_config_dot_json=values)


def found(folder: Path) -> str | None:
    template = find_template(folder)
    return template.text if template else None


def test_the_file_comes_before_the_named_ones_and_those_before_the_settings(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    settings(tmp_path, chat_template="of the settings")
    assert found(tmp_path) == "of the settings"
    write(tmp_path, additional_chat_templates__default_dot_jinja="of the folder")
    assert found(tmp_path) == "of the folder"
    write(tmp_path, chat_template_dot_jinja="of the file")
    assert found(tmp_path) == "of the file"


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    both = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    settings(tmp_path, chat_template=both)
    assert found(tmp_path) == "plain"
    settings(tmp_path, chat_template=both[:1])
    with pytest.raises(TaskError, match="tool_use, and none of them is the default") as caught:
        found(tmp_path)
    assert "chat_template.jinja" in caught.value.hint


def test_named_files_without_a_default_are_refused_as_in_transformers(tmp_path: Path) -> None:
    settings(tmp_path, chat_template="of the settings")
    write(tmp_path, additional_chat_templates__rag_dot_jinja="documents")
    with pytest.raises(TaskError, match="rag, and none of them is the default"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("tokenizer_config.json", b'{"chat_template": 3}', "of type int"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default", "template": ["a"]}]}', "of type list"),
        ("tokenizer_config.json", b'{"chat_template": ["a"]}', "the chat templates none"),
        ("chat_template.jinja", b"\xff\xfe{{", "cannot be read as text"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=message) as caught:
        find_template(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_special_tokens_are_texts_objects_or_extra_ones_and_null_has_no_name(tmp_path: Path) -> None:
    settings(
        tmp_path,
        chat_template="{{ bos_token }}",
        bos_token={"content": "<s>", "lstrip": False},
        eos_token=None,
        add_bos_token=True,
        image_token="<image>",
        extra_special_tokens={"audio_token": "<audio>"},
    )
    template = find_template(tmp_path)
    assert template
    assert template.special_tokens == {"bos_token": "<s>", "image_token": "<image>", "audio_token": "<audio>"}


def test_an_older_map_counts_unless_the_settings_hold_the_tokens_themselves(tmp_path: Path) -> None:
    write(tmp_path, special_tokens_map_dot_json={"eos_token": "</s>"}, chat_template_dot_jinja="x")
    settings(tmp_path, eos_token="<end>")
    assert find_template(tmp_path).special_tokens == {"eos_token": "</s>"}
    settings(tmp_path, eos_token="<end>", added_tokens_decoder={})
    assert find_template(tmp_path).special_tokens == {"eos_token": "<end>"}


def test_a_template_that_is_not_here_is_not_known() -> None:
    assert template_of_model("somebody/nothing") is None
    assert template_of_model("/nowhere/at/all") is None
    assert template_of_model(TINY).form.takes_system
