"""Settings of a task that say how disputed answers are judged, for the rewards to see."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.tasks.task import Selection, Task

CONVENTIONS = ("percent", "boxes")
"""Keys of `TaskConfig`; in an example's extra fields as `task.KEY`."""


@dataclass(frozen=True, slots=True)
class JudgedTask:
    """A task whose examples have further extra fields; all else is the task's own."""

    task: Task
    extra: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields the task's examples with the extra fields; what is no example stays as it is."""
        for example in self.task.examples(selection):
            known = isinstance(example, Example)
            yield replace(example, extra={**example.extra, **self.extra}) if known else example
