"""A trial is one run of a study, and an ordinary run directory: what is there says whether it is done."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from random import Random

from lowmem_rl.checkpointing.resume import is_finished
from lowmem_rl.experiment.study import Study
from lowmem_rl.storage.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: a task, an arm, a seed; while an arm is tuned also the number of a choice, from 0."""

    task: str
    arm: str
    seed: int
    choice: int | None = None

    @property
    def place(self) -> Path:
        """The run directory, within the study's."""
        if self.choice is None:
            return Path("runs", self.task, self.arm, f"seed-{self.seed}")
        return Path("tune", self.task, self.arm, str(self.choice), f"seed-{self.seed}")

    @property
    def name(self) -> str:
        """The trial in rows, logs and messages."""
        return self.place.as_posix()


class State(Enum):
    """What is in a trial's directory."""

    NEW = "to come"
    STARTED = "started"
    """`train --resume` continues it."""
    DONE = "done"


def state_of(out: Path, trial: Trial, steps: int) -> State:
    """Returns how far a trial of so many steps is. Raises `RunDirError` for a damaged directory."""
    run_dir = RunDir(out / trial.place)
    if not run_dir.config.exists():
        return State.NEW
    return State.DONE if is_finished(run_dir, steps) else State.STARTED


def final_trials(study: Study) -> Iterator[Trial]:
    """Yields the runs that are compared: seeds outermost and arms shuffled within each.

    A study that is cut off is balanced, and a machine that slows down does so for all arms.
    """
    for seed in study.seeds:
        yield from _shuffled(study, seed, [None])


def tuning_trials(study: Study) -> Iterator[Trial]:
    """Yields the runs by which each arm's setting is chosen."""
    for seed in study.tuning.seeds if study.tuning else ():
        yield from _shuffled(study, seed, range(len(study.arms[0].choices)))


def _shuffled(study: Study, seed: int, choices: Iterator[int | None] | range | list[None]) -> list[Trial]:
    block = [Trial(task, arm.name, seed, choice) for choice in choices for task in study.tasks for arm in study.arms]
    Random(f"{study.name}/{seed}").shuffle(block)
    return block
