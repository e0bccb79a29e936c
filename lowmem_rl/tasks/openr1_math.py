"""OpenR1-Math-220k: problems of NuminaMath with answers; its traces of reasoning are not read.

A row is `problem`, `answer`, `question_type`, `source`, ... Proofs and multiple-choice questions are
left aside: their answers are a word or a letter. Some proofs are marked as word problems; their answer is "proof".
"""

from lowmem_rl.tasks.hub_task import SCRAPED_BAD_SHARE, DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

KIND = "math-word-problem"
NO_ANSWERS = ("proof", "MCQ", "notfound")
"""What NuminaMath-1.5 writes where a problem has no answer of its own (AI-MO/NuminaMath-1.5, discussion 1)."""


def read_row(row: SourceRow) -> Problem | None:
    """Returns a row's problem, None for a proof or a choice. Raises `TaskError`."""
    if row.value("question_type") != KIND or row.value("answer") in NO_ANSWERS:
        return None
    return Problem(row.text("problem").strip(), row.answer("answer"), extra={"subject": row.values.get("problem_type")})


OPENR1_MATH = DataSet(
    name="openr1_math",
    summary="competition mathematics of NuminaMath whose answers were verified",
    data=HubData(
        "open-r1/OpenR1-Math-220k",
        "default",
        test=None,
        columns=("problem", "answer", "problem_type", "question_type"),
    ),
    read=read_row,
    bad_share=SCRAPED_BAD_SHARE,
)
