"""Draws examples from a task and checks each: a task may be a user's own, and what it yields be anything."""

from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Any

from lowmem_rl.config.user_code import in_one_line
from lowmem_rl.errors import LowMemError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.task import ROLES, Selection, Task


def draw_examples(task: Task, selection: Selection, most: int) -> list[Example]:
    """Returns the first examples of a selection: `most`, or its limit where that is less.

    A task without end is never asked for more. Raises `TaskError`, naming task and example number,
    for whatever the task raises, for an example that is none, and for an id that comes twice.
    """
    wanted = most if selection.limit is None else min(most, selection.limit)
    drawn: dict[str, Example] = {}
    try:
        for example in islice(task.examples(selection), wanted):
            if mistake := _mistake(example) or _repeated(example, drawn):
                raise _unusable(task, selection, len(drawn) + 1, mistake)
            drawn[example.id] = example
    except LowMemError:
        raise
    except (Exception, SystemExit) as error:
        what = f"the task raised {in_one_line(error)}"
        raise _unusable(task, selection, len(drawn) + 1, what) from error
    return list(drawn.values())


def gold_completion_of(task: Task, example: Example) -> str:
    """Returns a task's perfect completion. Raises `TaskError` for whatever the task raises, and for what is no text."""
    try:
        completion = task.gold_completion(example)
    except (Exception, SystemExit) as error:
        raise _no_gold(example, f"raised {in_one_line(error)}") from error
    if not isinstance(completion, str):
        raise _no_gold(example, f"returned {completion!r:.80}, not a text")
    return completion


def _no_gold(example: Example, what: str) -> TaskError:
    hint = "It returns a completion that every correctness reward pays in full."
    return TaskError(f"gold_completion {what} (example {example.id!r}).", hint=hint)


def check_disjoint(train: Sequence[Example], test: Sequence[Example]) -> None:
    """Raises `TaskError` where a held-out prompt stands among the training prompts, too."""
    trained = {_prompt_key(example): example.id for example in train}
    for example in test:
        if (twin := trained.get(_prompt_key(example))) is not None:
            raise TaskError(
                f"Test example {example.id!r} asks the same as train example {twin!r}: {example.question[:80]!r}.",
                hint="A held-out problem must be new: let the splits share no prompt.",
            )


def _prompt_key(example: Example) -> Hashable:
    return tuple((message["role"], message["content"]) for message in example.prompt)


def _mistake(example: Any) -> str | None:
    """Returns what keeps an object from being an example."""
    if not isinstance(example, Example):
        return f"it is of type {type(example).__name__}, not an Example"
    for name in ("id", "answer"):
        text = getattr(example, name)
        if not isinstance(text, str) or not text.strip():
            return f"{name} is {text!r:.80}, not a text"
    if not isinstance(example.prompt, tuple | list) or not example.prompt:
        return f"prompt is of type {type(example.prompt).__name__}, not a tuple of messages with at least one"
    return next((f"{m!r:.80} in its prompt is no message" for m in example.prompt if not _is_message(m)), None)


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in ROLES
        and isinstance(message["content"], str)
    )


def _repeated(example: Example, drawn: dict[str, Example]) -> str | None:
    # Rewards find an example by its id: the later one's answer would judge both.
    return f"id {example.id!r:.80} came before" if example.id in drawn else None


def _unusable(task: Task, selection: Selection, number: int, what: str) -> TaskError:
    name = getattr(task, "name", type(task).__name__)
    return TaskError(
        f"Task {name!r}, {selection.split} example {number}: {what}.",
        hint='It takes Example(id="unique", prompt=({"role": "user", "content": "..."},), answer="text").',
    )
