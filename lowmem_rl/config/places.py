"""The files that a configuration names: absolute, so that a run resumes from any directory, and found after a move."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.config.problems import is_hostile
from lowmem_rl.config.user_code import is_user_code
from lowmem_rl.errors import ConfigError, LowMemError, RunDirError, TaskError
from lowmem_rl.models.lookup import TINY

MODEL, START, TASK, EVAL_TASKS = "model.name", "start_from", "task.name", "eval.tasks"
FILES = ("task.path", "curriculum.rates", START)
"""Keys whose value is always a file or a folder."""
_REWARD = "rewards."


def absolute_values(values: Mapping[str, object]) -> dict[str, object]:
    """Returns values by dotted key, with `~` expanded and each file, folder and FILE.py:NAME from the root on.

    A model's name is a folder's if there is such a folder, as when it is loaded.
    """
    return {_absolute_key(key): _absolute_value(key, value) for key, value in values.items()}


def _absolute_key(key: str) -> str:
    name = key.removeprefix(_REWARD)
    return f"{_REWARD}{_absolute_code(name)}" if name != key else key


def _absolute_value(key: str, value: object) -> object:
    if key == EVAL_TASKS and isinstance(value, list | tuple):
        return type(value)(_absolute_value(TASK, name) for name in value)
    if not isinstance(value, str) or is_hostile(value):
        return value
    if key in (TASK, EVAL_TASKS):
        return _absolute_code(value)
    is_folder = key == MODEL and value != TINY and Path(os.path.expanduser(value)).is_dir()
    return _absolute(value) if is_folder or key in FILES else value


def _absolute_code(name: str) -> str:
    if not is_user_code(name) or is_hostile(name):
        return name
    file, _, attribute = name.rpartition(":")
    return f"{_absolute(file)}:{attribute}"


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else path


def without_folder(name: str) -> str:
    """Returns FILE.py:NAME without the folder of the file; any other name as it is."""
    return Path(name).name if is_user_code(name) else name


def after_move(old: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Returns a run's values by dotted key, with the new place of each file that `given` names again.

    It is the same one, moved, if it is a model of which one name is a folder's, the file of a task's data or of pass
    rates, or code of the same NAME. Whether its content is the same is checked where it is read.
    """
    moved = {key: given[key] if _is_same(key, value, given.get(key)) else value for key, value in old.items()}
    moved |= {key: tuple(value) for key, value in moved.items() if isinstance(value, list)}  # as a configuration has it
    renamed = {_old_reward(key, old, given): key for key in given if key.startswith(_REWARD) and key not in old}
    return {renamed.get(key, key): value for key, value in moved.items()}


def _old_reward(key: str, old: Mapping[str, object], given: Mapping[str, object]) -> str | None:
    gone = (other for other in old if other.startswith(_REWARD) and other not in given)
    return next((other for other in gone if _same_code(other, key)), None)


def _is_same(key: str, old: object, new: object) -> bool:
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        pairs = zip(old, new, strict=False)
        return key == EVAL_TASKS and len(old) == len(new) and all(a == b or _is_same(TASK, a, b) for a, b in pairs)
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    if key == MODEL:
        return os.path.isabs(old) or os.path.isabs(new)
    return key in FILES or (key == TASK and _same_code(old, new))


def _same_code(old: str, new: str) -> bool:
    return is_user_code(old) and is_user_code(new) and old.rpartition(":")[2] == new.rpartition(":")[2]


def check_places(values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a run's model that is no longer in its folder, `RunDirError` for the adapter that it has
    started from, `TaskError` for other missing files.
    """
    for key, name in _named(values):
        file = name.rpartition(":")[0] if is_user_code(name) else name
        if os.path.isabs(file) and not Path(file).exists():
            error: type[LowMemError] = {MODEL: ConfigError, START: RunDirError}.get(key, TaskError)
            what = f"{file} is missing, which this run names ({key})."
            option = _reward_options(values) if key == "rewards" else _OPTIONS[key]
            raise error(what, hint=f"If it has moved, add its new place: {option}")


def _reward_options(values: Mapping[str, Any]) -> str:
    """Returns the options that name all rewards of a run again: those of a command line replace them all."""
    weights = {key.removeprefix(_REWARD): weight for key, weight in values.items() if key.startswith(_REWARD)}
    places = {name: f"FOLDER/{without_folder(name)}" if is_user_code(name) else name for name in weights}
    return " ".join(f"--reward {places[name]}={weight:g}" for name, weight in weights.items())


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what may be a file, each with its key."""
    yield from ((key, values[key]) for key in (MODEL, TASK, *FILES) if values.get(key))
    yield from ((EVAL_TASKS, name) for name in values.get(EVAL_TASKS, ()))
    rewards = (key for key, weight in values.items() if key.startswith(_REWARD) and weight)
    yield from (("rewards", key.removeprefix(_REWARD)) for key in rewards)


_OPTIONS = {
    MODEL: "--model FOLDER",
    START: "--from FOLDER",
    TASK: "--task FILE.py:NAME",
    EVAL_TASKS: "--set eval.tasks=[...]",
    "task.path": "--set task.path=FILE",
    "curriculum.rates": "--set curriculum.rates=FILE",
}
