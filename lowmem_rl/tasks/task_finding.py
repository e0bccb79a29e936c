"""What can be wrong with a task, and which of it prevents training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lowmem_rl.errors import TaskError
from lowmem_rl.finding import Finding

TOLERATED_SHARE = 0.01
"""Duplicates and overlong prompts up to this share are notes: large sets are never quite clean."""

Level = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class TaskFinding(Finding):
    """A problem with a task. Notes are worth knowing, errors prevent training."""

    level: Level


def level_of(count: int, total: int) -> Level:
    """Returns the level of a fault that `count` of `total` have."""
    return "note" if count <= TOLERATED_SHARE * total else "error"


def refuse(task: str, findings: Sequence[TaskFinding]) -> None:
    """Raises `TaskError` for the first error among the findings, if there is one."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: `lowmem-rl tasks check {task}`)" if errors[1:] else ""
        raise TaskError(f"Task {task!r}: {errors[0].what}{more}.", hint=errors[0].fix)
