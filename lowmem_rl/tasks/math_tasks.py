"""MATH: competition problems in five levels with LaTeX answers (arXiv 2103.03874), and MATH-500, a sample of its test.

The full set is `problem`, `level` ("Level 3"), `type`, `solution`, and the answer is the solution's last
box; MATH-500 is `problem`, `solution`, `answer`, `subject`, `level` (3), `unique_id`. Either may stand in a
local file.
"""

import re

from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.verify.extract import last_box

LEVELS = (1, 2, 3, 4, 5)
EMPTY_BOX_SHARE = 0.001
"""Of 7,500 training rows 2 have an empty box."""

_BARE_BOX = re.compile(r"\\boxed\s+([^\s$\\.{}]+)")


def read_row(row: SourceRow) -> Problem:
    """Returns a row's problem with its level, if it has one of the five. Raises `TaskError`."""
    question, solution = row.text("problem").strip(), row.text("solution").strip()
    answer = row.answer("answer") if row.values.get("answer") is not None else boxed_gold(row, solution)
    return Problem(
        question, answer, solution, _level(row), {"subject": row.values.get("subject", row.values.get("type"))}
    )


def boxed_gold(row: SourceRow, solution: str) -> str:
    """Returns the answer that a solution boxes last, also in the form `\\boxed 5`. Raises `TaskError` for none."""
    bare = _BARE_BOX.findall(solution)
    answer = last_box(solution) or (bare[-1] if bare else "")
    if not answer:
        raise row.unusable("its solution boxes no answer", "A solution ends like: so the sum is $\\boxed{42}$.")
    return answer


def _level(row: SourceRow) -> int | None:
    """Returns 3 for 3 and "Level 3"; None for the two rows of "Level ?"."""
    level = str(row.value("level")).removeprefix("Level ")
    return int(level) if level in map(str, LEVELS) else None


MATH_DATA = HubData("DigitalLearningGmbH/MATH-lighteval", "default")

MATH = DataSet(
    name="math",
    summary="competition mathematics in five levels, 7,500 to train on and 5,000 held out",
    data=MATH_DATA,
    read=read_row,
    levels=LEVELS,
    bad_share=EMPTY_BOX_SHARE,
    sorted_by="subject",
)

# The 500 are of MATH's test split: its training split is theirs, too.
MATH500 = DataSet(
    name="math500",
    summary="competition mathematics, judged by the 500 problems of MATH-500",
    data=MATH_DATA,
    test_data=HubData("HuggingFaceH4/MATH-500"),
    read=read_row,
    levels=LEVELS,
    bad_share=EMPTY_BOX_SHARE,
)
