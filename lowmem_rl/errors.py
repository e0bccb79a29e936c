"""What can go wrong, and with which exit code.

    LowMemError                    1   base; carries a hint, the fix in one line
    |-- ConfigError                2   bad key, value or combination
    |   `-- UnknownName                preset, key, task, reward: lists near names
    |-- SetupError                 3   the machine is not ready
    |-- DoesNotFit                 4   more memory than the card has
    |-- TrainingError              5   a run stopped: memory, NaN, health
    |-- TaskError                  6   task or data
    |   `-- RewardError                a reward failed, on which example
    |-- RunDirError                7   unreadable, half-written or non-empty run directory
    |-- NoSignal                   8   no gradient would carry information
    `-- Interrupted              130   Ctrl-C, after saving

A message names what is wrong, where, and the rule; the hint is the fix. A user's mistake prints both lines and
nothing else, a bug prints its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class LowMemError(Exception):
    """Base of every error that is meant for the user."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(LowMemError):
    """A key, a value or a combination of values that no run can have."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that is not in its list; the hint offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"There is no {kind} named {name!r}.", hint=near_names(name, known))


class SetupError(LowMemError):
    """The machine lacks something: a package, a card, the network, a file."""

    exit_code = 3


class DoesNotFit(LowMemError):
    """The run needs more memory than the card has."""

    exit_code = 4


class TrainingError(LowMemError):
    """A run that had started could not continue."""

    exit_code = 5


class TaskError(LowMemError):
    """The task or its data cannot be used."""

    exit_code = 6


class RewardError(TaskError):
    """A reward raised, or returned something other than a score."""


class RunDirError(LowMemError):
    """A run directory that cannot be read, or that must not be written."""

    exit_code = 7


class NoSignal(LowMemError):
    """A run whose gradients would carry no information."""

    exit_code = 8


class Interrupted(LowMemError):
    """The user stopped the run; its state is saved."""

    exit_code = 130


def near_names(name: str, known: Iterable[str]) -> str:
    """Returns a hint with the names nearest to `name`, or all of them if none is near."""
    names = sorted(known)
    holding = [other for other in names if len(name) > 2 and name.lower() in other.lower()]
    near = holding[:3] or get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(names)}." if names else ""
