import os
from pathlib import Path

import pytest

from lowmem_rl.checkpointing.resume_config import with_changes
from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, read_assignments, resolve
from lowmem_rl.config.places import absolute_values, check_places, without_folder
from lowmem_rl.errors import ConfigError, TaskError


@pytest.mark.parametrize(
    ("key", "typed", "expected"),
    [
        ("task.path", "data.jsonl", "{here}/data.jsonl"),
        ("task.path", "~/data", "{home}/data"),
        ("task.path", "../x/./data", "{above}/x/data"),
        ("curriculum.rates", "runs/probe.json", "{here}/runs/probe.json"),
        ("task.name", "tasks/mine.py:Task", "{here}/tasks/mine.py:Task"),
        ("task.name", "gsm8k", "gsm8k"),
        ("eval.tasks", ("gsm8k", "~/mine.py:Task"), ("gsm8k", "{home}/mine.py:Task")),
        ("eval.tasks", "mine.py:Task", "{here}/mine.py:Task"),
        ("model.name", "models/qwen", "{here}/models/qwen"),
        ("model.name", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("model.name", "tiny", "tiny"),
        ("task.path", None, None),
        ("task.path", 3, 3),
        ("task.path", "a\0b", "a\0b"),
        ("rollout.engine", "mine.py:x", "mine.py:x"),
    ],
)
def test_a_file_is_named_from_the_root_on_and_nothing_else_is_touched(key, typed, expected, tmp_path) -> None:
    (tmp_path / "models/qwen").mkdir(parents=True)
    (tmp_path / "tiny").mkdir()

    def filled(value):
        places = {"here": tmp_path, "above": tmp_path.parent, "home": os.path.expanduser("~")}
        return value.format(**places) if isinstance(value, str) else value

    wanted = tuple(map(filled, expected)) if isinstance(expected, tuple) else filled(expected)
    assert absolute_values({key: typed}) == {key: wanted}


def test_one_reward_by_two_paths_is_one_reward(tmp_path) -> None:
    composed = resolve(preset="tiny-cpu", settings=["rewards.my.py:f=1", f"rewards.{tmp_path}/x/../my.py:f=0.5"])
    assert composed.config.rewards[f"{tmp_path}/my.py:f"] == 0.5
    assert composed.origins.keys() >= {f"rewards.{tmp_path}/my.py:f"}


def test_a_name_without_its_folder() -> None:
    assert [without_folder(name) for name in ("/a/b.py:C", "gsm8k", "org/name")] == ["b.py:C", "gsm8k", "org/name"]


def saved() -> ResolvedConfig:
    """A run of a user's own task and reward; the order of its rewards is that in which they are added up."""
    settings = ["task.name=old/t.py:Task", "eval.tasks=['gsm8k', 'old/t.py:Other']", "curriculum.rates=old/rates.json"]
    settings += ["curriculum.by=pass_rate", "curriculum.how=window", "model.name=Qwen/Qwen2.5-1.5B-Instruct"]
    rewards = read_assignments(
        "--reward", ["old/r.py:f=1.0", "think_format=0.2"], prefix="rewards.", replaces_rewards=True
    )
    return resolve(preset="tiny-cpu", settings=settings, flags=[rewards])


def changed(*settings: str, rewards: tuple[str, ...] = (), **flags: str) -> ResolvedConfig:
    layers = [read_assignments("--set", settings)]
    layers += [ConfigLayer(f"--{name}", {f"{name}.name": value}) for name, value in flags.items()]
    if rewards:
        layers.append(read_assignments("--reward", rewards, prefix="rewards.", replaces_rewards=True))
    return with_changes(saved(), layers)


def test_what_has_moved_may_be_named_again_on_resume(tmp_path) -> None:
    composed = changed(
        "curriculum.rates=new.json",
        "eval.tasks=['gsm8k', 'new/t.py:Other']",
        rewards=("think_format=0.2", "new/renamed.py:f=1.0"),
        task="new/t.py:Task",
        model=str(tmp_path),
    )
    config, before = composed.config, saved().config
    assert config.task.name == f"{tmp_path}/new/t.py:Task"
    assert config.task.levels == before.task.levels  # a moved task keeps its data
    assert config.eval.tasks == ("gsm8k", f"{tmp_path}/new/t.py:Other")
    assert config.curriculum.rates == f"{tmp_path}/new.json"
    assert config.model.name == str(tmp_path)
    assert [*config.rewards.items()] == [(f"{tmp_path}/new/renamed.py:f", 1.0), ("think_format", 0.2)]
    assert composed.origins[f"rewards.{tmp_path}/new/renamed.py:f"] == "--reward"


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        ({"task": "new/t.py:Another"}, "task.name"),
        ({"task": "gsm8k"}, "task.name"),
        ({"model": "Qwen/Qwen2.5-7B-Instruct"}, "model.name"),
        ({"rewards": ("new/r.py:f=0.5", "think_format=0.2")}, "new/r.py:f"),
        ({"rewards": ("new/r.py:g=1.0", "think_format=0.2")}, "new/r.py:g"),
        ({"rewards": ("new/r.py:f=1.0",)}, "rewards.think_format"),
    ],
)
def test_what_is_another_thing_is_refused(request_, shown) -> None:
    with pytest.raises(ConfigError, match="in this run, and") as refused:
        changed(**request_)
    assert shown in str(refused.value)


def test_a_run_may_take_more_steps_but_not_fewer() -> None:
    steps = saved().config.grpo.steps
    assert changed(f"grpo.steps={steps + 5}").config.grpo.steps == steps + 5
    with pytest.raises(ConfigError, match="grpo.steps") as refused:
        changed(f"grpo.steps={steps - 5}")
    assert "grpo.steps may grow" in refused.value.hint


@pytest.mark.parametrize(
    ("values", "error", "option"),
    [
        ({"model.name": "/nowhere/qwen"}, ConfigError, "--model FOLDER"),
        ({"task.path": "/nowhere/data"}, TaskError, "--set task.path="),
        ({"task.name": "/nowhere/t.py:Task"}, TaskError, "--task FILE.py:NAME"),
        ({"eval.tasks": ["/nowhere/t.py:Task"]}, TaskError, "--set eval.tasks="),
        (
            {"rewards./nowhere/r.py:f": 1.0, "rewards.think_format": 0.25},
            TaskError,
            "--reward FOLDER/r.py:f=1 --reward think_format=0.25",
        ),
    ],
)
def test_a_file_that_is_gone_is_named_with_the_option_for_its_new_place(values, error, option) -> None:
    with pytest.raises(error, match="/nowhere/.* is missing") as gone:
        check_places(values)
    assert option in gone.value.hint


def test_what_is_there_or_is_no_file_passes(tmp_path) -> None:
    Path("r.py").touch()
    rewards = {f"rewards.{tmp_path}/r.py:f": 1.0, "rewards./nowhere/off.py:f": 0.0, "rewards.boxed_answer": 1.0}
    check_places(rewards | {"model.name": "Qwen/Qwen2.5", "task.name": "gsm8k", "task.path": str(tmp_path)})
