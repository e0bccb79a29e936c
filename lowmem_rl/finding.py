"""`Finding`: one problem with a run, a reward, a task or the groups of a step, with its fix."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, how bad it is, and what to do about it. Each kind of finding has its own levels."""

    level: str
    what: str
    fix: str
