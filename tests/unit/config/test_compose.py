from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.compose import ConfigLayer, defaults, flatten, merge, parse_value, read_assignments, resolve
from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.errors import ConfigError, UnknownName

HARMLESS = {
    "grpo.steps": st.integers(1, 10**6),
    "eval.every": st.integers(0, 10**6),
    "seed": st.integers(0, 2**32 - 1),
}
LAYERS = st.lists(st.fixed_dictionaries({}, optional=HARMLESS), max_size=5)


def mistakes_of(**request: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(preset="tiny-cpu", **request)
    return f"{caught.value}\n{caught.value.hint}"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_layer_overrides_the_ones_below_it():
    first = write(Path("first.toml"), "seed = 1\n[grpo]\nsteps = 1\nbeta = 0.1\nepsilon = 0.3\n")
    second = write(Path("second.toml"), "[grpo]\nsteps = 2\nbeta = 0.2\n")
    composed = resolve(
        preset="tiny-cpu",
        config_files=[first, second],
        settings=["grpo.steps=3"],
        flags=[ConfigLayer("--steps", {"grpo.steps": 4})],
    )
    grpo = composed.config.grpo
    assert (grpo.steps, grpo.beta, grpo.epsilon, grpo.max_completion_tokens) == (4, 0.2, 0.3, 64)
    keys = ("grpo.steps", "grpo.beta", "grpo.epsilon", "grpo.max_completion_tokens", "adapter.alpha")
    wanted = ["--steps", str(second), str(first), "preset tiny-cpu", "default"]
    assert [composed.origins[key] for key in keys] == wanted


@given(LAYERS)
def test_the_last_layer_that_names_a_key_wins(contents):
    layers = [ConfigLayer(str(place), values) for place, values in enumerate(contents)]
    config = resolve(preset="tiny-cpu", flags=layers)
    for key in HARMLESS:
        naming = [layer for layer in layers if key in layer.values]
        if naming:
            assert flatten(config.config.model_dump())[key] == naming[-1].values[key]
            assert config.origins[key] == naming[-1].origin


@given(st.dictionaries(st.text("abc_:.", min_size=1), st.floats(0.1, 2)))
def test_every_value_has_an_origin(rewards):
    composed = resolve(
        preset="tiny-cpu", flags=[ConfigLayer("--reward", {f"rewards.{name}": w for name, w in rewards.items()})]
    )
    assert composed.origins.keys() == flatten(composed.config.model_dump()).keys()


def test_rewards_merge_by_name_unless_a_flag_replaces_them():
    merged = resolve(preset="tiny-cpu", settings=["rewards.random=0.5"])
    replaced = resolve(
        preset="tiny-cpu", flags=[ConfigLayer("--reward", {"rewards.random": 0.5}, replaces_rewards=True)]
    )
    assert merged.config.rewards == {"boxed_answer": 1.0, "think_format": 0.2, "random": 0.5}
    assert replaced.config.rewards == {"random": 0.5}


def test_all_mistakes_are_reported_at_once_with_key_value_origin_and_fix(tmp_path):
    file = write(tmp_path / "my.toml", "[grpo]\ngroup_sise = 4\n")
    message = mistakes_of(config_files=[file], settings=["grpo.group_size=1", "oops", "grpo.loss=dpo"])
    assert f"grpo.group_sise = 4 (from {file}): there is no such key. Did you mean grpo.group_size?" in message
    assert (
        "grpo.group_size = 1 (from --set): must be greater than or equal to 2. It takes an integer, at least 2"
        in message
    )
    assert "--set 'oops' is not KEY=VALUE" in message
    assert "grpo.loss = 'dpo' (from --set)" in message
    assert message.startswith("4 mistakes")


def test_one_mistake_is_one_line_and_its_fix_the_hint():
    assert mistakes_of(settings=["grpo.temperature=0.7"]).splitlines() == [
        "grpo.temperature = 0.7 (from --set): there is no such key.",
        "Did you mean rollout.temperature?",
    ]


def test_a_broken_rule_names_the_origin_of_its_key():
    message = mistakes_of(settings=["memory.micro_batch=5"])
    assert "memory.micro_batch = 5 (from --set): 5 does not divide the 64 completions" in message
    assert "Set it to 4" in message


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["grpo=1"], "grpo = 1 (from --set): is a section, not a key"),
        (["rewards=1"], "rewards = 1 (from --set): is a section, not a key"),
        (["seed={a=1}"], "seed.a = 1 (from --set): there is no such key"),
        (["=1"], "is not KEY=VALUE"),
        (["seed=1", "seed=2"], "seed is given twice by --set"),
        (["model.revision=1234567"], "must be a valid string"),
        (["model.name=a\0b"], "control characters"),
        (["model.name=\ud800"], "broken Unicode"),
        (["rewards.\udcff=1"], "broken Unicode"),
        (["adapter.alpha=0x" + "f" * 9000], "gigantic number"),
        (["grpo.steps=" + "9" * 9000], "exceeded maximum size"),
        (["task.levels=" + "[" * 9000], "task.levels"),
        (["task.levels=" + "[" * 300 + "]" * 300], "task.levels"),
        ([f"{'x' * 10**6}=1"], "there is no such key"),
        (["rewards.boxed_answer=nan"], "must be a finite number"),
        (["grpo.steps=1\n[grpo]\nbeta=1"], "control characters"),
    ],
)
def test_a_wrong_setting_is_reported_in_a_line(settings, expected):
    message = mistakes_of(settings=settings)
    assert expected in message
    assert len(message) < 400


def test_a_wrong_weight_shows_how_weights_are_written() -> None:
    with pytest.raises(ConfigError, match="must be a valid number") as raised:
        resolve(preset="tiny-cpu", settings=["rewards.use={boxed_answer=1.0}"])
    assert "such as rewards.boxed_answer=1.0" in raised.value.hint


@pytest.mark.slow
@given(st.lists(st.text() | st.text().map(lambda text: f"grpo.steps={text}") | st.text().map(lambda text: f"{text}=1")))
def test_no_setting_makes_a_traceback(settings):
    with suppress(ConfigError):
        resolve(preset="tiny-cpu", settings=settings)


@given(st.integers(-(10**9), 10**9) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_and_truth_values_are_read_as_toml(value):
    assert parse_value(str(value).lower()) == value


def test_what_is_no_toml_is_text():
    assert [parse_value(text) for text in ("gsm8k", "a/b-1", "", "1 2", '"8"')] == ["gsm8k", "a/b-1", "", "1 2", "8"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[grpo]\nsteps = \n", "at line 2, column 9"),
        (b"name = '\xff'", "not UTF-8 text (byte 8)"),
        (b"a = " + b"[" * 9000, "nests too deeply"),
        (b"seed = 1\nseed = 2", "overwrite"),
        (b"preset = 3", "there is no such key"),
        (b"[grpo.group_size]\nx = 1", "must be a valid integer"),
    ],
)
def test_a_broken_config_file_is_named_with_the_place(tmp_path, content, expected):
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    message = mistakes_of(config_files=[file])
    assert "broken.toml" in message
    assert expected in message


@pytest.mark.parametrize(
    "line",
    [r'path = "C:\Users\me\data.jsonl"', r'path = "C:\temp\new.jsonl"', r'path = "data\train"', r'path = "\\nas\x"'],
)
def test_a_windows_path_in_quotes_is_explained(tmp_path, line):
    message = mistakes_of(config_files=[write(tmp_path / "windows.toml", f"[task]\n{line}\n")])
    assert "Write a Windows path in single quotes" in message


@pytest.mark.parametrize("line", [r"path = 'C:\Users\new'", 'path = "C:/Users/new"', r'path = "C:\\Users\\new"'])
def test_a_windows_path_as_the_hint_writes_it_is_read(tmp_path, line):
    file = write(tmp_path / "windows.toml", f'[task]\nname = "gsm8k"\n{line}\n')
    assert str(resolve(preset="tiny-cpu", config_files=[file]).config.task.path).endswith("new")


@pytest.mark.parametrize("name", [".", "missing.toml", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_config_error(name):
    with pytest.raises(ConfigError):
        resolve(config_files=[Path(name)])


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    file = tmp_path / "notepad.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 7\n")
    assert resolve(config_files=[file]).config.seed == 7


def test_a_copied_preset_is_the_preset_itself(tmp_path):
    file = write(tmp_path / "mine.toml", load_preset("qwen7b-a6000").text)
    copy, original = resolve(config_files=[file]), resolve(preset="qwen7b-a6000")
    assert copy.config == original.config
    assert (copy.preset, copy.card) == ("mine", "a6000")


def test_a_config_file_without_a_preset_table_is_over_the_fallback(tmp_path):
    file = write(tmp_path / "more.toml", "[grpo]\nsteps = 3\n")
    composed = resolve(config_files=[file], fallback="qwen1.5b-t4")
    assert (composed.config.grpo.steps, composed.preset) == (3, "qwen1.5b-t4")


def test_an_unknown_preset_offers_near_names():
    with pytest.raises(UnknownName) as caught:
        resolve(preset="qwen7b-a600")
    assert "qwen7b-a6000" in caught.value.hint


def test_the_defaults_are_a_whole_run():
    assert merge([defaults()]).keys() == flatten(RunConfig().model_dump()).keys()


def test_a_reward_may_have_dots_in_its_name():
    layer = read_assignments("--reward", ["my.py:length=0.5"], prefix="rewards.", replaces_rewards=True)
    assert resolve(preset="tiny-cpu", flags=[layer]).config.rewards == {f"{Path.cwd()}/my.py:length": 0.5}


def test_another_task_does_not_inherit_levels_and_path():
    composed = resolve(preset="tiny-cpu", flags=[ConfigLayer("--task", {"task.name": "gsm8k"})])
    assert (composed.config.task.levels, composed.origins["task.levels"]) == ((), "default")
    same = resolve(preset="tiny-cpu", flags=[ConfigLayer("--task", {"task.name": "arithmetic"})])
    assert (same.config.task.levels, same.origins["task.levels"]) == ((3,), "preset tiny-cpu")


def test_what_is_set_with_or_after_another_task_stays(tmp_path):
    file = write(tmp_path / "my.toml", '[task]\nname = "gsm8k"\npath = "data"\n')
    assert resolve(preset="tiny-cpu", config_files=[file]).config.task.path == str(tmp_path / "data")
    later = resolve(preset="tiny-cpu", config_files=[file], settings=["task.levels=[1]"]).config.task
    assert (later.levels, later.path) == ((1,), str(tmp_path / "data"))
    back = resolve(config_files=[file], flags=[ConfigLayer("--task", {"task.name": "arithmetic"})])
    assert (back.config.task.path, back.origins["task.path"]) == (None, "default")


def test_data_that_is_set_without_a_task_is_meant_for_the_flags_task():
    task = ConfigLayer("--task", {"task.name": "gsm8k"})
    composed = resolve(preset="tiny-cpu", settings=["task.path=data"], flags=[task])
    assert (composed.config.task.levels, composed.config.task.path) == ((), str(Path.cwd() / "data"))


@pytest.mark.parametrize(
    ("card", "expected"),
    [("", "has no card"), ('card = "a600"', "unknown card, 'a600'"), ("card = 3", "unknown card, 3")],
)
def test_a_preset_table_without_a_known_card_is_refused(tmp_path, card, expected):
    message = mistakes_of(config_files=[write(tmp_path / "my.toml", f"[preset]\n{card}\n")])
    assert expected in message
    assert "a6000" in message


def test_a_file_named_like_a_flag_is_not_the_command_line():
    write(Path("--set"), '[task]\nname = "mine.py:Task"\n')
    origins = resolve(preset="tiny-cpu", config_files=[Path("--set")]).named_origins
    with pytest.raises(ConfigError, match=r"\./--set names code to run"):
        check_allowed(origins, allow_code=False)


@pytest.mark.parametrize(
    ("option", "layers", "extra"),
    [
        ('trainable={method="full", extra=["embed_tokens", "norm"]}', "all", ("embed_tokens", "norm")),
        ('trainable={method="full", layers="first:5"}', "first:5", ()),
        ('trainable={method="full", layers="last:5"}', "last:5", ()),
        ('trainable={method="full", layers="last:1"}', "last:1", ()),
    ],
)
def test_which_weights_learn_is_one_option(option, layers, extra):
    found = resolve(preset="tiny-cpu", settings=[option]).config.trainable
    assert (found.method, found.layers, found.extra) == ("full", layers, extra)
    assert option in (Path(__file__).parents[3] / "docs" / "trainable.md").read_text("utf-8")
