import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.config.user_code import check_allowed, is_user_code, resume_command
from lowmem_rl.errors import ConfigError, TaskError
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.task_registry import load_task, load_task_class


@pytest.mark.parametrize(
    ("name", "is_code"),
    [
        ("a.py:f", True),
        ("dir/a.py:f", True),
        ("boxed_answer", False),
        ("a.py", False),
        ("a.py:", False),
        ("a:f", False),
    ],
)
def test_only_file_and_name_together_are_code(name, is_code) -> None:
    assert is_user_code(name) is is_code


def test_code_that_a_file_names_needs_permission() -> None:
    with pytest.raises(ConfigError, match="names code to run") as refused:
        check_allowed({"a.py:f": "my.toml"}, allow_code=False)
    assert "--allow-code" in refused.value.hint
    check_allowed({"a.py:f": "my.toml"}, allow_code=True)
    check_allowed({"a.py:f": "--reward", "gsm8k": "my.toml"}, allow_code=False)


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ([], "lowmem-rl train --resume --out runs/x"),
        (["task.name=mine.py:Task"], "lowmem-rl train --resume --allow-code --out runs/x"),
        (['eval.tasks=["mine.py:Task"]'], "lowmem-rl train --resume --allow-code --out runs/x"),
        (["rewards.mine.py:f=0.0"], "lowmem-rl train --resume --allow-code --out runs/x"),
    ],
)
def test_the_command_that_continues_a_run_allows_the_code_that_it_names(settings, command) -> None:
    config = resolve(preset="tiny-cpu", settings=settings).config
    assert resume_command(Path("runs/x"), config) == command
    assert resume_command(Path("my run"), config).endswith("--out 'my run'")


def test_a_users_function_becomes_a_reward_of_its_name(tmp_path) -> None:
    (tmp_path / "mine.py").write_text("def long(completion, example):\n    return float(len(completion))\n")
    reward = load_reward(f"{tmp_path}/mine.py:long")
    assert (reward.name, reward.score("abc", None)) == ("long", 3.0)


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ("import nonsense_xyz", "f", "line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit(0)", "f", "line 2: SystemExit: 0"),
        ("x = 1\ny = (", "f", "SyntaxError"),
        ("def short(c, e): return 1", "shirt", "no reward named 'shirt'"),
        ("f = 3", "f", "is not a reward"),
    ],
)
def test_a_file_that_does_not_work_says_where(tmp_path, body, name, expected) -> None:
    (tmp_path / "mine.py").write_text(body)
    for path in ("mine.py", f"{tmp_path}/mine.py"):
        with pytest.raises(TaskError, match=expected):
            load_reward(f"{path}:{name}")


def test_a_file_without_a_name_in_it_is_asked_for_the_name() -> None:
    for load in (load_reward, load_task_class):
        with pytest.raises(ConfigError, match=r"mine\.py is a file: which (reward|task) of it is meant") as asked:
            load("mine.py")
        assert asked.value.hint == "Give it as mine.py:NAME."


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(TaskError, match="no file nowhere.py"):
        load_reward("nowhere.py:f")


def test_a_class_without_examples_is_no_task(tmp_path) -> None:
    (tmp_path / "mine.py").write_text("class T:\n    def __init__(self, convention): ...\n")
    with pytest.raises(TaskError, match="lacks examples"):
        load_task(TaskConfig(name=f"{tmp_path}/mine.py:T"))


def test_a_file_can_import_its_neighbour(tmp_path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("BONUS = 2.0\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import BONUS\ndef f(c, e): return BONUS\n")
    assert load_reward(f"{tmp_path}/mine.py:f").score("", None) == 2.0


def test_a_function_can_import_a_neighbour_when_it_is_called(tmp_path) -> None:
    (tmp_path / "late_neighbour.py").write_text("BONUS = 3.0\n")
    (tmp_path / "mine.py").write_text("def f(c, e):\n    from late_neighbour import BONUS\n    return BONUS\n")
    reward = load_reward(f"{tmp_path}/mine.py:f")
    load_reward(f"{tmp_path}/mine.py:f")
    assert reward.score("", None) == 3.0
    assert sys.path.count(str(tmp_path)) == 1


def test_a_neighbour_never_hides_a_module_of_ours(tmp_path) -> None:
    (tmp_path / "math_verify.py").write_text("raise RuntimeError\n")
    (tmp_path / "mine.py").write_text("def f(c, e): return 1.0\n")
    load_reward(f"{tmp_path}/mine.py:f")
    assert find_spec("math_verify").origin != str(tmp_path / "math_verify.py")


TASK = "class T:\n    def examples(self, s): ...\n    def gold_completion(self, e): ...\n"


def test_a_task_that_takes_no_convention_is_made_without(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    assert type(load_task(TaskConfig(name=f"{tmp_path}/mine.py:T"))).__name__ == "T"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def __init__(self, style): ...", "TypeError: .*'style'"),
        ("def __init__(self): {}['a']", "KeyError: 'a'"),
        ("def __init__(self): raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_task_that_cannot_be_made_says_why(tmp_path, body, expected) -> None:
    (tmp_path / "mine.py").write_text(f"{TASK}    {body}\n")
    with pytest.raises(TaskError, match=f"cannot be made: {expected}"):
        load_task(TaskConfig(name=f"{tmp_path}/mine.py:T"))
