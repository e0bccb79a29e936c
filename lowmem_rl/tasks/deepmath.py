"""DeepMath-103K: hard problems, cleaned of benchmark questions (arXiv 2504.11456); its solutions are not read.

A row is `question`, `final_answer`, `difficulty` (half steps), `topic`, three solutions.
"""

import math

from lowmem_rl.tasks.hub_task import SCRAPED_BAD_SHARE, DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

LEVELS = tuple(range(11))
"""Difficulties, rounded down."""


def read_row(row: SourceRow) -> Problem:
    """Returns a row's problem. Raises `TaskError`."""
    extra = {"subject": row.values.get("topic")}
    return Problem(row.text("question").strip(), row.answer("final_answer"), level=_level(row), extra=extra)


def _level(row: SourceRow) -> int | None:
    """Returns 7 for 7.5; None where the difficulty is unknown (-1)."""
    difficulty = row.value("difficulty")
    is_number = isinstance(difficulty, int | float) and math.isfinite(difficulty)
    return math.floor(difficulty) if is_number and difficulty >= 0 else None


DEEPMATH = DataSet(
    name="deepmath",
    summary="hard mathematics of many sources, by difficulty",
    data=HubData("zwhe99/DeepMath-103K", test=None, columns=("question", "final_answer", "difficulty", "topic")),
    read=read_row,
    levels=LEVELS,
    bad_share=SCRAPED_BAD_SHARE,
)
