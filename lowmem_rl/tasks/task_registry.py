"""Names of tasks, as strings, so that listing them imports none. `FILE.py:CLASS` is a user's own."""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from lowmem_rl.config.user_code import in_one_line, is_user_code, load_object, refuse_bare_file
from lowmem_rl.errors import ConfigError, LowMemError, TaskError, UnknownName
from lowmem_rl.tasks.conventions import CONVENTIONS, JudgedTask
from lowmem_rl.tasks.task import Task

if TYPE_CHECKING:
    # Listing the tasks needs no configuration, whose models take longer to build than the list.
    from lowmem_rl.config.run_config import TaskConfig

TASKS = {
    "arithmetic": "lowmem_rl.tasks.arithmetic:ARITHMETIC",
    "countdown": "lowmem_rl.tasks.countdown:COUNTDOWN",
    "countdown_hub": "lowmem_rl.tasks.countdown:COUNTDOWN_HUB",
    "deepmath": "lowmem_rl.tasks.scraped_math:DEEPMATH",
    "deepscaler": "lowmem_rl.tasks.scraped_math:DEEPSCALER",
    "gsm8k": "lowmem_rl.tasks.gsm8k:GSM8K",
    "hellaswag": "lowmem_rl.tasks.hellaswag:HELLASWAG",
    "hellaswag_free": "lowmem_rl.tasks.hellaswag:HELLASWAG_FREE",
    "math": "lowmem_rl.tasks.math_tasks:MATH",
    "math500": "lowmem_rl.tasks.math_tasks:MATH500",
    "matrix_inverse": "lowmem_rl.tasks.linear_algebra:MATRIX_INVERSE",
    "open_thoughts": "lowmem_rl.tasks.scraped_math:OPEN_THOUGHTS",
    "openr1_math": "lowmem_rl.tasks.scraped_math:OPENR1_MATH",
    "program_synthesis": "lowmem_rl.tasks.program_synthesis:PROGRAM_SYNTHESIS",
    "rlvr_gsm": "lowmem_rl.tasks.rlvr:RLVR_GSM",
    "rlvr_math": "lowmem_rl.tasks.rlvr:RLVR_MATH",
    "rref": "lowmem_rl.tasks.linear_algebra:RREF",
    "sanity_math": "lowmem_rl.tasks.math_tasks:SANITY_MATH",
    "table": "lowmem_rl.tasks.custom_dataset:TABLE",
    "word_problems": "lowmem_rl.tasks.word_problems:WORD_PROBLEMS",
}
_DATA_KEYS = ("path", "hub", "subset", "columns", "splits", "answer", "max_bad_share", "eval_share")
"""Settings of `TaskConfig` that name data; a task takes those that it uses."""


def load_task_class(name: str) -> Callable[..., Any]:
    """Returns the constructor of a task: a class, or a task that returns itself with other settings.

    Raises `UnknownName` for an unknown task, `ConfigError` for a file without a class name, `TaskError` for a user's
    file that fails.
    """
    if is_user_code(name):
        found = load_object(name, kind="task")
        missing = [part for part in ("examples", "gold_completion") if not callable(getattr(found, part, None))]
        if not isinstance(found, type) or missing:
            raise TaskError(
                f"{name} is not a task{f': it lacks {missing[0]}' if missing else ''}.",
                hint="A task is a class with examples(selection) and gold_completion(example).",
            )
        return found
    refuse_bare_file(name, "task")
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    module, _, attribute = TASKS[name].partition(":")
    constructor: Callable[..., Any] = getattr(import_module(module), attribute)
    return constructor


def load_task(config: "TaskConfig") -> Task:
    """Returns the task that `config` describes. One that writes its own prompts need not take `convention`.

    Raises `UnknownName`, `ConfigError` for unused data settings, `TaskError` for a task that cannot be constructed.
    """
    name, constructor = config.name, load_task_class(config.name)
    fields = type(config).model_fields
    given = {key: getattr(config, key) for key in _DATA_KEYS if getattr(config, key) != fields[key].default}
    for key, value in given.items():
        _check_use(name, constructor, key, value)
    try:
        if _takes(constructor, "convention"):
            given["convention"] = config.prompt
        task: Task = constructor(**given)
    except LowMemError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"Task {name!r} cannot be made: {in_one_line(error)}",
            hint="Its __init__ takes convention=TEXT or nothing, and path=TEXT if has_data is True.",
        ) from error
    judged = {f"task.{key}": getattr(config, key) for key in CONVENTIONS if getattr(config, key) != fields[key].default}
    return JudgedTask(task, judged) if judged else task


def _check_use(name: str, constructor: Callable[..., Any], key: str, value: Any) -> None:
    has_data = getattr(constructor, "has_data", False)
    if has_data if key == "path" else _takes(constructor, key):
        return
    what = "knows where its data is" if has_data else "generates its problems"
    another = "name a task that reads data" if key == "path" else "set task.name=table"
    raise ConfigError(f"task.{key} is {value!r}, but task {name!r} {what}.", hint=f"Unset task.{key}, or {another}.")


def _takes(constructor: Callable[..., Any], name: str) -> bool:
    parameters = signature(constructor).parameters
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
