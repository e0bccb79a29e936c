"""What a run reports while it runs. The command line draws these events; a library user may listen, too."""

import contextlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.trainable.selection import LayerSelection


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A part of the run began, such as loading the model."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
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
class FindingReported:
    """A new health finding, or one whose severity increased."""

    finding: HealthFinding


@dataclass(frozen=True, slots=True)
class AdapterSaved:
    """The adapter was written."""

    path: Path


@dataclass(frozen=True, slots=True)
class LayersSelected:
    """The layers that learn are selected."""

    selection: LayerSelection


Event = PhaseStarted | Note | LayersSelected | EvalProgressed | EvalEnded | StepEnded | FindingReported | AdapterSaved
Listener = Callable[[Event], None]


def isolate_listener(listen: Listener) -> Listener:
    """Returns a listener that never ends a run: its first failure is reported, once."""
    failed = False

    def listen_on(event: Event) -> None:
        nonlocal failed
        try:
            listen(event)
        except Exception as error:  # noqa: BLE001  # whatever draws may fail in any way
            if not failed:
                failed = True
                traceback.print_exc(file=sys.stderr)
                with contextlib.suppress(Exception):
                    listen(Note(f"the display of the run failed; the run continues: {type(error).__name__}: {error}"))

    return listen_on
