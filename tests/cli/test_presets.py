import json
import tomllib

import pytest

from lowmem_rl.config.compose import flatten, resolve
from lowmem_rl.config.presets import load_preset, load_presets

NAMES = [preset.name for preset in load_presets()]


def test_list_has_a_line_for_each_preset(cli_here):
    outcome = cli_here("presets", "list")
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == NAMES
    assert (outcome.code, outcome.stderr) == (0, "")


def test_list_as_json_has_the_same_presets(cli_here):
    rows = json.loads(cli_here("presets", "list", "--json").stdout)
    assert [row["name"] for row in rows] == NAMES
    assert all(row["group_size"] >= 4 and row["model"] and row["card"] for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_show_prints_a_config_file_that_makes_the_same_run(cli_here, tmp_path, name):
    file = tmp_path / "shown.toml"
    file.write_text(cli_here("presets", "show", name).stdout)
    assert resolve(preset="tiny-cpu", config_files=[file]).config == resolve(preset=name).config


def test_show_has_the_origin_next_to_each_value(cli_here):
    lines = cli_here("presets", "show", "qwen7b-a6000").stdout.splitlines()
    settings = [line.split() for line in lines if " = " in line or " unset " in line]
    assert len(settings) == len(resolve(preset="qwen7b-a6000").origins)
    assert next(words for words in settings if words[0] == "group_size")[2:] == ["32", "#", "preset", "qwen7b-a6000"]
    assert next(words for words in settings if words[0] == "beta")[-1] == "default"


def test_show_as_json_has_config_and_origins(cli_here):
    shown = json.loads(cli_here("presets", "show", "tiny-cpu", "--json").stdout)
    assert shown["config"]["grpo"]["group_size"] == 8
    assert shown["origins"].keys() == flatten(shown["config"]).keys()


def test_explain_shows_meaning_range_default_and_presets(cli_here):
    page = cli_here("presets", "explain", "grpo.group_size").stdout
    assert "Completions sampled per prompt" in page
    assert "an integer, at least 2, at most 4096" in page
    assert page.index("default  8") < page.index("set by presets")
    assert all(name in page for name in NAMES)


@pytest.mark.parametrize("arguments", [[], ["grpo"], ["rewards"], ["rewards.boxed_answer"], ["seed"]])
def test_explain_takes_a_key_a_section_or_nothing(cli_here, arguments):
    assert cli_here("presets", "explain", *arguments).stdout


def test_explain_finds_a_key_without_its_section(cli_here):
    outcome = cli_here("presets", "explain", "micro_batch")
    assert outcome.code == 2
    assert outcome.stderr.splitlines()[1] == "hint: Did you mean memory.micro_batch?"


def test_copy_writes_the_file_with_its_comments(cli_here, tmp_path):
    file = tmp_path / "mine.toml"
    outcome = cli_here("presets", "copy", "tiny-cpu", str(file))
    assert (outcome.code, outcome.stdout) == (0, "")
    assert file.read_text(encoding="utf-8") == load_preset("tiny-cpu").text
    assert tomllib.loads(file.read_text())["model"]["name"] == "tiny"


def test_copy_never_overwrites(cli_here, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("precious")
    assert cli_here("presets", "copy", "tiny-cpu", str(file)).code == 2
    assert file.read_text() == "precious"


@pytest.mark.parametrize("place", ["no/such/folder/x.toml", "a\0b", "."])
def test_copy_names_the_place_that_it_cannot_write(cli_here, place):
    outcome = cli_here("presets", "copy", "tiny-cpu", place)
    assert outcome.code == 2
    assert len(outcome.stderr.splitlines()) == 2
