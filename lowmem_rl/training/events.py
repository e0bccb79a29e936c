"""What a run tells while it runs. The command line draws these; a library user may listen too."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.evaluation.result import EvalResult
from lowmem_rl.health.finding import Finding
from lowmem_rl.runs import Row


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """A part of the run began, such as loading the model."""

    name: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something the user should know: a value that was adjusted, prompts that were left out."""

    text: str


@dataclass(frozen=True, slots=True)
class EvalProgressed:
    """`done` of `total` examples of an evaluation are answered."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class EvalEnded:
    """An evaluation is complete."""

    name: str
    result: EvalResult


@dataclass(frozen=True, slots=True)
class StepEnded:
    """One optimizer step is done; `row` is what metrics.jsonl got."""

    row: Row
    num_steps: int


@dataclass(frozen=True, slots=True)
class Found:
    """Something ails the run that was not told yet, or not as gravely."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Saved:
    """The adapter was written."""

    path: Path


Event = PhaseBegan | Noted | EvalProgressed | EvalEnded | StepEnded | Found | Saved
Listener = Callable[[Event], None]
