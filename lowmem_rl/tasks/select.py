"""Draws examples from a task and checks each: a user's own task may yield anything."""

from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Any

from lowmem_rl.config.user_code import in_one_line
from lowmem_rl.errors import LowMemError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.task import ROLES, Selection, Task


def draw_examples(task: Task, selection: Selection, most: int) -> list[Example]:
    """Returns the first examples of a selection: `most`, or its limit if that is smaller.

    A task without end is never asked for more. Raises `TaskError`, naming task and example number, for any error of
    the task, for an object that is not an example, and for an id that comes twice.
    """
    wanted = most if selection.limit is None else min(most, selection.limit)
    drawn: dict[str, Example] = {}
    try:
        for example in islice(task.examples(selection), wanted):
            if problem := _problem(example):
                raise _unusable(task, selection, len(drawn) + 1, problem)
            if example.id in drawn:  # rewards find an example by its id: the later one's answer would serve both
                raise _unusable(task, selection, len(drawn) + 1, f"id {example.id!r:.80} came before")
            drawn[example.id] = example
    except LowMemError:
        raise
    except (Exception, SystemExit) as error:
        what = f"the task raised {in_one_line(error)}"
        raise _unusable(task, selection, len(drawn) + 1, what) from error
    return list(drawn.values())


def gold_completion_of(task: Task, example: Example) -> str:
    """Returns a task's perfect completion. Raises `TaskError` for any error of the task, and if it is not text."""
    hint = "It returns a completion that every correctness reward pays in full."
    try:
        completion = task.gold_completion(example)
    except (Exception, SystemExit) as error:
        what = f"gold_completion raised {in_one_line(error)} (example {example.id!r})."
        raise TaskError(what, hint=hint) from error
    if not isinstance(completion, str):
        what = f"gold_completion returned {completion!r:.80}, not a text (example {example.id!r})."
        raise TaskError(what, hint=hint)
    return completion


def check_disjoint(train: Sequence[Example], test: Sequence[Example]) -> None:
    """Raises `TaskError` if a held-out prompt is among the training prompts."""
    trained = {_prompt_key(example): example.id for example in train}
    for example in test:
        if (twin := trained.get(_prompt_key(example))) is not None:
            raise TaskError(
                f"Test example {example.id!r} asks the same as train example {twin!r}: {example.question[:80]!r}.",
                hint="A held-out problem must be new: let the splits share no prompt.",
            )


def _prompt_key(example: Example) -> Hashable:
    return tuple((message["role"], message["content"]) for message in example.prompt)


def _problem(example: Any) -> str | None:
    """Returns why an object is not an example, None if it is one."""
    if not isinstance(example, Example):
        return f"it is of type {type(example).__name__}, not an Example"
    for name in ("id", "answer"):
        text = getattr(example, name)
        if not isinstance(text, str) or not text.strip():
            return f"{name} is {text!r:.80}, not a text"
    if not isinstance(example.prompt, tuple | list) or not example.prompt:
        return f"prompt is of type {type(example.prompt).__name__}, not a tuple of messages with at least one"
    return next((f"{m!r:.80} in its prompt is not a message" for m in example.prompt if not _is_message(m)), None)


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in ROLES
        and isinstance(message["content"], str)
    )


def _unusable(task: Task, selection: Selection, number: int, what: str) -> TaskError:
    name = getattr(task, "name", type(task).__name__)
    return TaskError(
        f"Task {name!r}, {selection.split} example {number}: {what}.",
        hint='It takes Example(id="unique", prompt=({"role": "user", "content": "..."},), answer="text").',
    )
